"""Statistics per channel against numpy on all the data at once."""

import numpy as np
import pytest
import torch
from small_networks import Net, noise
from torch import nn

from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.channel_statistics import (
    ChannelStatistics,
    observe_channels,
)
from edgedl.runtime.errors import BadInputError


@pytest.mark.parametrize(("axis", "shape"), [(1, (5, 3, 4, 2)), (-1, (5, 4, 3)), (-1, (9, 3))])
def test_it_is_numpys(axis: int, shape: tuple[int, ...]) -> None:
    parts = [noise(*shape, seed=s) * (s + 1) + 2 for s in range(3)]
    found = ChannelStatistics(axis)
    for part in parts:
        found.add(part)
    everything = np.concatenate([np.moveaxis(p.numpy(), axis, -1).reshape(-1, 3) for p in parts])
    np.testing.assert_allclose(found.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, everything.std(0), rtol=1e-5)
    np.testing.assert_array_equal(found.lo, everything.min(0))
    np.testing.assert_array_equal(found.hi, everything.max(0))
    np.testing.assert_array_equal(found.largest, np.abs(everything).max(0))


def test_only_what_was_asked_for_is_observed() -> None:
    graph = trace(nn.Conv2d(2, 3, 1), (noise(2, 2, 4, 4),))
    node = next(n for n in graph.graph.nodes if n.name == "conv2d")
    found = observe_channels(graph, [(noise(4, 2, 4, 4),), (noise(2, 2, 4, 4),)], {node: 1})
    assert list(found) == [node]
    assert found[node].mean.shape == (3,)


def test_no_samples_and_bad_samples_are_refused() -> None:
    graph = trace(Net(lambda _, x: x * 2.0), (noise(2, 3),))
    (node,) = (n for n in graph.graph.nodes if n.name == "mul")
    with pytest.raises(BadInputError, match="no calibration samples"):
        observe_channels(graph, [], {node: -1})
    with pytest.raises(BadInputError, match="not finite in 'mul'"):
        observe_channels(graph, [(torch.tensor([[1.0, float("nan"), 0.0]]),)], {node: -1})
