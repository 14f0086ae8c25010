"""The operator table: each overload has one row, and what has none is float and stays whole."""

import math
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, noise
from torch import Tensor, fx, nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.placement import quantized_nodes
from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.operators.operator import Ranges, aten
from edgedl.compress.graph.operators.table import NO_ROW, ROWS, is_quantizable, row_of
from edgedl.compress.graph.trace import export_graph, trace


def node_of(target: object) -> fx.Node:
    return fx.Graph().call_function(target)


def test_every_overload_and_every_name_stands_in_one_row() -> None:
    for counted in (
        Counter(o for row in ROWS for o in row.overloads),
        Counter(r.name for r in ROWS),
    ):
        assert set(counted.values()) == {1}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_found_and_do_not_contradict_themselves(row) -> None:
    assert all(row_of(node_of(overload)) is row for overload in row.overloads)
    assert (row.fixed_range is not None) == (row.ranges is Ranges.FIXED)
    clips = [node_of(o) for o in row.overloads if row.ranges is Ranges.FUSES]
    assert all(row.bounds(node) is not None for node in clips)
    assert row.resize is None or row.join_axes is not None
    assert row.training in {"", *(a.name for o in row.overloads for a in arguments(o))}


def arguments(overload: object) -> Iterator[torch.Argument]:
    yield from getattr(getattr(overload, "_schema", None), "arguments", ())


def test_an_operator_without_a_row_is_float_and_pins() -> None:
    row = row_of(node_of(aten.kthvalue.default))
    assert row is NO_ROW
    assert row.ranges is Ranges.FLOAT
    assert row.join_axes is None
    assert not row.weighted
    assert not row.product
    assert not is_quantizable(node_of(aten.kthvalue.default))


def test_what_torch_tags_as_pointwise_keeps_axes_and_is_float() -> None:
    row = row_of(node_of(aten.erf.default))
    assert row.join_axes is not None
    assert row.ranges is Ranges.FLOAT


@torch.library.custom_op("edgedl_tests::reverse_channels", mutates_args=())
def reverse_channels(x: Tensor) -> Tensor:
    return x.flip(1).clone()


@reverse_channels.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("edgedl_tests::scale_in_place", mutates_args=("x",))
def scale_in_place(x: Tensor) -> None:
    x *= torch.arange(1, x.shape[1] + 1)[:, None, None]


def between(operator, **layers: nn.Module) -> Net:
    """Return convolutions of 8 and 6 channels with an operator between them, and a head."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(F.relu(m.second(operator(F.relu(m.first(x))))).mean((2, 3)))

    return Net(
        forward,
        first=nn.Conv2d(3, 8, 1),
        second=nn.Conv2d(8, 6, 1),
        head=nn.Linear(6, 5),
        **layers,
    ).eval()


def in_place(x: Tensor) -> Tensor:
    scale_in_place(x)
    return x


UNKNOWN = {
    "a custom operator": reverse_channels,
    "one that returns nothing": in_place,
    "an operator of torch": lambda x: torch.cummax(x, 1)[0],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_channels_on_both_sides_of_an_unknown_operator_stay(name: str) -> None:
    graph = export_graph(between(UNKNOWN[name]), (noise(2, 3, 4, 4),))
    axes = TensorAxes(graph)
    assert [group.size for group in channel_groups(axes)] == [6]
    assert axes.tensors["first.weight"][0].root().frozen
    assert axes.tensors["second.weight"][1].root().frozen
    assert len(axes.in_the_way()) == 1
    # Nothing but the operator keeps them.
    known = TensorAxes(export_graph(between(torch.erf), (noise(2, 3, 4, 4),)))
    assert sorted(group.size for group in channel_groups(known)) == [6, 8]


def test_an_unknown_operator_computes_in_float() -> None:
    graph = trace(between(reverse_channels), (noise(2, 3, 4, 4),))
    encodings = calibrate(graph, [(noise(2, 3, 4, 4),)], "minmax")
    chosen = quantized_nodes(graph.graph, encodings)
    calls = [n for n in graph.graph.nodes if n.op == "call_function"]
    assert {str(n.target) for n in calls if n not in chosen} == {
        "edgedl_tests.reverse_channels.default"
    }


def test_multiply_adds_are_those_that_a_person_counts() -> None:
    graph = export_graph(between(torch.erf), (noise(2, 3, 4, 4),))
    axes = TensorAxes(graph)
    found = [p for n in graph.graph.nodes for p in row_of(n).macs(axes.of, n)]
    counts = [p.places * math.prod(a.size for a in p.axes) // p.samples for p in found]
    assert counts == [16 * 8 * 3, 16 * 6 * 8, 6 * 5]
