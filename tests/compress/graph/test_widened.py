"""Half precision computed in float32: as near to the float network as torch's own kernels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, network, noise
from torch import fx, nn

from edgedl.compress.export.float_types import to_bfloat16, to_float16
from edgedl.compress.graph.run import run_graph, without_onednn
from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.widened import HALVES, widened
from edgedl.compress.subject.outputs import as_tuple


@pytest.mark.parametrize("to_half", [to_float16, to_bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_loses_what_half_precision_loses(
    name: str, to_half: Callable[[fx.GraphModule], fx.GraphModule]
) -> None:
    net = network(name)
    half = to_half(net.graph)
    # oneDNN has no recurrent layers of float16 on many processors.
    with torch.no_grad(), without_onednn():
        own = [y.numpy() for y in as_tuple(half(*net.inputs))]
    found = run_graph(half, tuple(x.numpy() for x in net.inputs))
    exact = run_graph(net.graph, tuple(x.numpy() for x in net.inputs))
    for wide, narrow, wanted in zip(found, own, exact, strict=True):
        lost, usual = (np.square(y - wanted, dtype=np.float64).sum() for y in (wide, narrow))
        assert 0 < lost < 2 * usual + 1e-12


def test_averages_are_rounded_too() -> None:
    net = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"))
    half = to_float16(trace(net.eval(), (x := noise(2, 3, 8, 8),)))
    (found,) = run_graph(half, (x.numpy(),))
    assert np.array_equal(found, found.astype(np.float16).astype(np.float32))


def test_nothing_inside_is_half_precision() -> None:
    half = to_float16(network("operators").graph)
    wide = widened(half)
    assert not {t.dtype for t in (*wide.parameters(), *wide.buffers())} & {*HALVES}
    assert widened(half) is wide
    assert widened(wide) is wide
