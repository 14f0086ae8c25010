"""Parts of outputs: found by origin or by size, and measured by hand again."""

from typing import Any

import numpy as np
import pytest
import torch
from small_networks import Net, noise
from torch import nn

from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.parity.parts import OutputOrigins, Part, measure_part


def parts_of(net: nn.Module, *shape: int) -> list[Part]:
    x = noise(4, *shape)
    graph = trace(net, (x,))
    inputs = (x.numpy(),)
    return OutputOrigins(graph, inputs).parts(0, run_graph(graph, inputs)[0])


def heads(forward: Any) -> nn.Module:
    torch.manual_seed(0)
    return Net(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 2, 1), c=nn.Conv2d(3, 1, 1))


@pytest.mark.parametrize(
    ("forward", "sizes"),
    [
        (lambda n, x: torch.cat([n.a(x), n.b(x)], 1), [4, 2]),
        (lambda n, x: torch.cat([n.a(x).flatten(2), n.b(x).flatten(2)], 1).mT, [4, 2]),
        (lambda n, x: torch.cat([n.a(x), torch.cat([n.b(x), n.c(x)], 1)], 1).sigmoid(), [4, 2, 1]),
        (lambda n, x: torch.stack([n.c(x), n.c(x) * 2], 1).flatten(1), [1, 1]),
        (lambda n, x: torch.cat([n.a(x), n.b(x)], 1)[:, 1:], [3, 2]),
        (lambda n, x: torch.cat([n.a(x), n.b(x)], 1).relu().mean((2, 3)), []),
        (lambda n, x: n.a(x), []),
    ],
)
def test_what_was_joined_is_followed_to_the_output(forward: Any, sizes: list[int]) -> None:
    parts = parts_of(heads(forward), 3, 5, 5)
    assert [int(p.places.sum()) / 25 for p in parts] == sizes
    covered = sum(p.places.astype(int) for p in parts)
    assert not sizes or (covered == 1).all()


def test_columns_of_another_size_are_a_part() -> None:
    net = Net(lambda n, x: n.fc(x), fc=nn.Linear(6, 4))
    net.fc.weight.data[2:] *= 1e-3
    net.fc.bias.data[2:] *= 1e-3
    parts = parts_of(net, 6)
    assert [p.places.tolist() for p in parts] == [
        [True, True, False, False],
        [False, False, True, True],
    ]
    assert parts[1].name.startswith("positions 2 to 3 of axis 1")


def test_quiet_samples_are_a_part() -> None:
    graph = trace(Net(lambda n, x: n.fc(x), fc=nn.Linear(6, 4, bias=False)), (noise(2, 6),))
    x = noise(16, 6).numpy()
    x[:5] /= 50
    origins = OutputOrigins(graph, (x,))
    (part,) = origins.parts(0, run_graph(graph, (x,))[0])
    assert part.samples.sum() == 4
    assert set(np.nonzero(part.samples)[0]) < set(range(5))


def test_the_numbers_are_those_found_by_hand() -> None:
    reference = noise(50, 6).numpy()
    found = reference.copy()
    found[:, 3:] = np.clip(found[:, 3:], -0.1, 0.1)
    found[:, 0] = 0.25
    mask = np.array([True, True, False, False, False, False])
    first = measure_part(Part("first", mask), found, reference)
    error = np.square(found[:, :2] - reference[:, :2]).sum()
    assert first.sqnr_db == pytest.approx(
        10 * np.log10(np.square(reference[:, :2]).sum() / error), rel=1e-6
    )
    assert (first.values, first.constant) == (2, 0.5)
    last = measure_part(Part("last", np.arange(6) >= 3), found, reference)
    beyond = np.abs(reference[:, 3:]) > 0.1 + 0.002
    assert last.saturated == pytest.approx(beyond.mean(), abs=1e-6)
    assert last.constant == 0.0
    same = measure_part(Part("same", np.arange(6) == 2), found, reference)
    assert (same.sqnr_db, same.constant, same.saturated) == (None, 0.0, 0.0)
