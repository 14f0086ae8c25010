"""Arguments are read by their names in torch's schema, wherever a call has them."""

import pytest
import torch
from torch import fx

from edgedl.compress.graph.edit import insert_constant
from edgedl.compress.graph.operators.convolution import Convolution
from edgedl.compress.graph.operators.joining import Slice
from edgedl.compress.graph.operators.linear import Linear, MatrixProduct
from edgedl.compress.graph.operators.normalization import BatchNorm, LayerNorm
from edgedl.compress.graph.operators.operator import (
    Weighted,
    argument,
    aten,
    first_input,
    has_padding,
    operands,
    reads_activations,
    set_argument,
)
from edgedl.compress.graph.operators.recurrent import Recurrent
from edgedl.compress.graph.operators.table import ROWS, row_of


def call(target: object, *args: object, **kwargs: object) -> fx.Node:
    """Return a call whose arguments "x", "w" ... are placeholders of that name."""
    graph = fx.Graph()
    names = [a for a in (*args, *kwargs.values()) if isinstance(a, str) and len(a) == 1]
    found = {name: graph.placeholder(name) for name in dict.fromkeys(names)}
    read = lambda a: found.get(a, a) if isinstance(a, str) else a  # noqa: E731
    return graph.call_function(
        target, tuple(map(read, args)), {k: read(v) for k, v in kwargs.items()}
    )


CONVOLUTION_CALLS = {
    "positions": call(aten.conv2d.default, "x", "w", "b", [2, 2], [1, 1], [3, 3], 4),
    "names": call(
        aten.conv2d.default,
        "x",
        "w",
        groups=4,
        dilation=[3, 3],
        padding=[1, 1],
        stride=[2, 2],
        bias="b",
    ),
    "names alone": call(
        aten.conv2d.default,
        weight="w",
        bias="b",
        stride=[2, 2],
        padding=[1, 1],
        dilation=[3, 3],
        groups=4,
        input="x",
    ),
}


@pytest.mark.parametrize("name", CONVOLUTION_CALLS)
def test_a_call_may_name_its_arguments(name: str) -> None:
    view = Convolution.of(CONVOLUTION_CALLS[name])
    assert [str(n) for n in (view.input, view.weight, view.bias)] == ["x", "w", "b"]
    assert (view.stride, view.padding, view.dilation, view.groups) == ([2, 2], [1, 1], [3, 3], 4)


def test_defaults_are_those_of_torch() -> None:
    view = Convolution.of(call(aten.conv2d.default, "x", "w"))
    assert view.bias is None
    x, w = torch.randn(1, 4, 7, 7), torch.randn(6, 4, 3, 3)
    given = (view.stride, view.padding, view.dilation, view.groups)
    torch.testing.assert_close(aten.conv2d(x, w, None, *given), aten.conv2d(x, w))
    assert Convolution.of(call(aten.conv1d.padding, "x", "w")).padding == "valid"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_arguments_are_those_of_the_schema(row) -> None:
    """Every argument, given by position or by name, is read back."""
    for overload in row.overloads:
        schema = getattr(overload, "_schema", None)
        names = [a.name for a in schema.arguments if not a.kwarg_only] if schema else []
        values = [f"{name} given" for name in names]
        by_position = call(overload, *values)
        by_name = call(overload, **dict(zip(names, values, strict=True)))
        for node in (by_position, by_name):
            assert [argument(node, name) for name in names] == values
        bare = call(overload)
        defaults = {a.name: a.default_value for a in schema.arguments} if schema else {}
        assert {name: argument(bare, name) for name in defaults} == defaults


def test_each_overload_has_its_name_for_the_first_input() -> None:
    for target in (aten.conv2d.default, aten.max_pool2d.default):
        assert str(argument(call(target, "x"), "input")) == "x"
    pool = call(aten.max_pool2d.default, self="x", kernel_size=[2, 2])
    assert str(argument(pool, "input")) == "x"
    set_argument(pool, "input", "y")
    assert pool.kwargs == {"self": "y", "kernel_size": [2, 2]}


def test_other_views() -> None:
    norm = BatchNorm.of(call(aten.batch_norm.default, "x", "w", "b", "m", "v", False, 0.1, 1e-5, 1))
    assert (str(norm.running_mean), norm.training, norm.momentum) == ("m", False, 0.1)
    assert LayerNorm.of(call(aten.layer_norm.default, "x", [4])).normalized_shape == [4]
    assert LayerNorm.of(call(aten.layer_norm.default, "x", [4], bias="b")).weight is None
    assert str(Linear.of(call(aten.linear.default, "x", "w", bias="b")).bias) == "b"
    view = Slice.of(call(aten.slice.Tensor, "x", 1, end=3))
    assert (view.dim, view.start, view.end, view.step) == (1, None, 3, 1)
    layer = call(aten.gru.input, "x", "h", ["p"], True, 1, 0.0, train=False, bidirectional=False)
    assert str(Recurrent.of(layer).hx) == "h"


def test_factors_of_matrix_products() -> None:
    for target in (aten.matmul.default, aten.bmm.default):
        assert [str(n) for n in MatrixProduct.of(call(target, "a", "b"))] == ["a", "b", "None"]
    for target in (aten.baddbmm.default, aten.addmm.default):
        assert [str(n) for n in MatrixProduct.of(call(target, "c", "a", "b"))] == ["a", "b", "c"]


def test_arguments_are_written_where_they_stand() -> None:
    node = call(aten.conv2d.default, "x", "w", bias="b")
    for name, value in (("weight", "new"), ("bias", None), ("groups", 2), ("stride", [3, 3])):
        set_argument(node, name, value)
        assert argument(node, name) == value
    assert [str(a) for a in node.args] == ["x", "new"]
    short = call(aten.linear.default, "x", "w")
    set_argument(short, "bias", "added")
    assert [str(a) for a in short.args] == ["x", "w", "added"]


def test_operands_and_first_inputs() -> None:
    assert [str(a) for a in operands(call(aten.add.Tensor, "x", other="y", alpha=2))] == ["x", "y"]
    assert str(first_input(call(aten.relu.default, self="x"))) == "x"
    assert first_input(fx.Graph().placeholder("x")) is None
    assert reads_activations(call(aten.mul.Tensor, "x", "y"))
    assert not reads_activations(call(aten.mul.Tensor, "x", 2.0))


@pytest.mark.parametrize(
    ("node", "padded"),
    [
        (call(aten.conv2d.default, "x", "w"), False),
        (call(aten.conv2d.default, "x", "w", padding=[0, 1]), True),
        (call(aten.conv2d.padding, "x", "w", padding="same"), True),
        (call(aten.conv2d.padding, "x", "w"), False),
        (call(aten.max_pool2d.default, "x", [2, 2], [2, 2], [1, 1]), True),
        (call(aten.avg_pool2d.default, "x", [2, 2]), False),
    ],
)
def test_padding(node: fx.Node, padded: bool) -> None:
    assert has_padding(node) is padded


@pytest.mark.parametrize(
    ("node", "bounds"),
    [
        (call(aten.relu.default, "x"), (0.0, float("inf"))),
        (call(aten.relu6.default, "x"), (0.0, 6.0)),
        (call(aten.hardtanh.default, "x"), (-1.0, 1.0)),
        (call(aten.hardtanh.default, "x", max_val=3.0), (-1.0, 3.0)),
        (call(aten.clamp.default, "x", max=2.0), (float("-inf"), 2.0)),
        (call(aten.clamp.default, "x", 0.0), (0.0, float("inf"))),
    ],
)
def test_bounds_are_what_torch_clips_to(node: fx.Node, bounds: tuple[float, float]) -> None:
    assert row_of(node).bounds(node) == bounds
    x = torch.linspace(-10, 10, 101)
    computed = node.target(x, *node.args[1:], **node.kwargs)
    torch.testing.assert_close(computed, x.clamp(*bounds))


def test_stored_weights_have_paths() -> None:
    module = fx.GraphModule(torch.nn.Module(), graph := fx.Graph())
    x = graph.placeholder("x")
    node = graph.call_function(aten.linear.default, (x, x))
    assert not Weighted.of(node).has_stored_weight
    with pytest.raises(TypeError, match="'x' is not stored"):
        _ = Weighted.of(node).weight_path
    set_argument(
        node,
        "weight",
        insert_constant(module, node, "own_weight", torch.ones(2, 2)),
    )
    assert Weighted.of(node).weight_path == "own_weight"
    assert Weighted.of(node).bias_path is None
