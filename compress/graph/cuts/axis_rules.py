"""Which axes an operator makes the same: one rule for each."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from edgedl.compress.graph.cuts.axes import Axis
from edgedl.compress.graph.cuts.shape_rules import SHAPE_RULES, argument, named_argument, without
from edgedl.compress.graph.operators.table import (
    ADDED_PRODUCTS,
    CONVOLUTIONS,
    EMBEDDING,
    TRANSPOSED,
    aten,
)

if TYPE_CHECKING:
    from edgedl.compress.graph.cuts.tensor_axes import TensorAxes

Rule = Callable[["TensorAxes", fx.Node], None]


def elementwise(axes: "TensorAxes", node: fx.Node) -> None:
    """Every operand's axes are the result's, but for those that are repeated."""
    for operand in node.all_input_nodes:
        axes.join_broadcast(node, axes.of(operand), axes.of(node))


def linear(axes: "TensorAxes", node: fx.Node) -> None:
    """Weight [out, in]: the last axis of the result and of the input."""
    weight, result = axes.of(node.args[1]), axes.of(node)
    axes.join(node, axes.of(node.args[0]), [*result[:-1], weight[1]])
    axes.join(node, [weight[0]], result[-1:])
    axes.join(node, axes.of(argument(node, 2)), result[-1:][: len(axes.of(argument(node, 2)))])


def convolution(axes: "TensorAxes", node: fx.Node) -> None:
    """Weight [out, in / groups, ...]: of a group, the channels of input and result."""
    _convolve(axes, node, groups=int(argument(node, 6, 1)), transposed=False)


def transposed_convolution(axes: "TensorAxes", node: fx.Node) -> None:
    """Weight [in, out / groups, ...]."""
    _convolve(axes, node, groups=int(argument(node, 6, 1)), transposed=True)


def _convolve(axes: "TensorAxes", node: fx.Node, groups: int, transposed: bool) -> None:
    x, weight, result = axes.of(node.args[0]), axes.of(node.args[1]), axes.of(node)
    group = Axis(groups)
    whole, part = (x[1], result[1]) if transposed else (result[1], x[1])
    if groups == 1:
        axes.join(node, [weight[0], weight[1]], [whole, part])
    else:
        # A group of one channel in and one out may go; of larger ones only channels of each.
        inner = Axis(weight[0].size // groups)
        axes.join(node, [weight[0]], [Axis.product([group, inner])])
        axes.join(node, [whole], [weight[0]])
        axes.join(node, [part], [Axis.product([group, weight[1]])])
    bias = axes.of(argument(node, 2))
    axes.join(node, bias, [result[1]][: len(bias)])
    axes.join(node, x[:1], result[:1])


def channel_norm(axes: "TensorAxes", node: fx.Node) -> None:
    """Batch and instance norm: weight, bias, mean and variance have the channels, axis 1."""
    axes.join(node, axes.of(node.args[0]), axes.of(node))
    for operand in node.args[1:5]:
        own = axes.of(operand)
        axes.join(node, own, axes.of(node)[1:2][: len(own)])


def parametric_relu(axes: "TensorAxes", node: fx.Node) -> None:
    """One slope for all, or one for each channel, axis 1."""
    axes.join(node, axes.of(node.args[0]), axes.of(node))
    axes.join_broadcast(node, axes.of(node.args[1]), axes.of(node)[1:2])


def layer_norm(axes: "TensorAxes", node: fx.Node) -> None:
    """Layer and root-mean-square norm: weight and bias have the last axes."""
    axes.join(node, axes.of(node.args[0]), axes.of(node))
    for operand in node.args[2:4]:
        axes.join_broadcast(node, axes.of(operand), axes.of(node))


def group_norm(axes: "TensorAxes", node: fx.Node) -> None:
    """The channels are groups, which stay, of channels that are alike in each."""
    channels = axes.of(node)[1]
    groups = Axis(int(argument(node, 1)), f"'{node.name}' normalizes in groups")
    inside = Axis(channels.size // groups.size)
    axes.join(node, [channels], [Axis.product([groups, inside])])
    axes.join(node, axes.of(node.args[0]), axes.of(node))
    for operand in node.args[2:4]:
        own = axes.of(operand)
        axes.join(node, own, axes.of(node)[1:2][: len(own)])


def matrix_product(axes: "TensorAxes", node: fx.Node) -> None:
    """[..., m, k] times [..., k, n]; what is added to it first is as large."""
    *added, a, b = (axes.of(x) for x in node.args[: 3 if node.target in ADDED_PRODUCTS else 2])
    for summand in added:
        axes.join_broadcast(node, summand, axes.of(node))
    result = axes.of(node)
    if len(a) < 2 or len(b) < 2:
        axes.freeze([a, b, result], f"'{node.name}' multiplies a vector")
        return
    axes.join(node, [a[-1], a[-2], b[-1]], [b[-2], result[-2], result[-1]])
    for operand in (a, b):
        axes.join_broadcast(node, operand[:-2], result[:-2])


def einsum(axes: "TensorAxes", node: fx.Node) -> None:
    """Axes of one letter are the same."""
    if not axes_of_letters(axes, node):
        tensors = [*map(axes.of, argument(node, 1)), axes.of(node)]
        axes.freeze(tensors, f"'{node.name}' is written in a way that pruning does not read")


def axes_of_letters(axes: "TensorAxes", node: fx.Node) -> dict[str, Axis]:
    """Make axes of one letter of an einsum the same; return the axis of each.

    None are returned where a letter stands twice in a tensor, or dots stand for several axes.
    """
    terms, arrow, result = str(node.args[0]).replace(" ", "").partition("->")
    written = [*terms.split(","), result]
    if not arrow or "." in terms or any(len(set(term)) < len(term) for term in written):
        return {}
    found: dict[str, Axis] = {}
    for term, own in zip(written, [*map(axes.of, argument(node, 1)), axes.of(node)], strict=True):
        for letter, axis in zip(term, own, strict=True):
            axes.join(node, [found.setdefault(letter, axis)], [axis])
    return found


def attention(axes: "TensorAxes", node: fx.Node) -> None:
    """[..., T, D], [..., S, D], [..., S, E] -> [..., T, E]; D stays, since it scales the scores.

    Heads of keys and values may be fewer, [..., H, S, D] with H dividing the queries' heads.
    """
    query, key, value = (axes.of(x) for x in node.args[:3])
    result = axes.of(node)
    axes.join(node, [query[-1], key[-2], value[-1]], [key[-1], value[-2], result[-1]])
    axes.freeze([query[-1]], f"the width of a head of '{node.name}' scales its scores")
    axes.join(node, query[:-1], result[:-1])
    if node.kwargs.get("enable_gqa"):
        # Every head of keys and values serves as many heads of queries, those beside each other.
        shared = Axis(query[-3].size // key[-3].size)
        axes.join(node, [query[-3], key[-3]], [Axis.product([key[-3], shared]), value[-3]])
        result = [*result[:-3], key[-3], *result[-2:]]
    for operand in (key, value):
        axes.join_broadcast(node, operand[:-2], result[:-2])
    axes.join_broadcast(node, axes.of(argument(node, 3)), [*result[:-1], key[-2]])


def softmax(axes: "TensorAxes", node: fx.Node) -> None:
    """The axis that sums to one keeps its size."""
    own = axes.of(node)
    axes.join(node, axes.of(node.args[0]), own)
    axes.freeze([own[int(argument(node, 1))]], f"'{node.name}' sums to one along it")


def embedding(axes: "TensorAxes", node: fx.Node) -> None:
    """Table [words, width]: the words stay."""
    table, result = axes.of(node.args[0]), axes.of(node)
    axes.freeze([table[0]], f"'{node.name}' looks up in it")
    axes.join(node, [*axes.of(node.args[1]), table[1]], result)


def pool(axes: "TensorAxes", node: fx.Node) -> None:
    """Batch and channels stay what they are."""
    x = axes.of(node.args[0])
    channels = len(x) - (1 if "1d" in str(node.target) else 2)
    for result in axes.results(node):
        axes.join(node, x[:channels], result[:channels])


def reduction(axes: "TensorAxes", node: fx.Node) -> None:
    """What is summed or averaged over keeps its size; the others are the result's."""
    x = axes.of(node.args[0])
    given = named_argument(node, "dim")
    listed = [] if given is None else given if isinstance(given, (list, tuple)) else [given]
    gone = {int(d) % len(x) for d in listed} or set(range(len(x)))
    axes.freeze([x[d] for d in gone], f"'{node.name}' runs over it")
    kept = without(x, gone)
    for result in axes.results(node):
        stays = bool(named_argument(node, "keepdim"))
        axes.join(node, kept, without(result, gone) if stays else result)


# Operators that work position by position without torch's tag that says so.
_ELEMENTWISE = (
    aten.alias.default,
    aten.contiguous.default,
    aten.detach_.default,
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.log_sigmoid.default,
    aten.to.dtype,
    aten.where.ScalarOther,
)
_RULES: dict[Any, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys(
        (
            aten.amax.default,
            aten.amin.default,
            aten.argmax.default,
            aten.linalg_vector_norm.default,
            aten.logsumexp.default,
            aten.max.dim,
            aten.mean.dim,
            aten.min.dim,
            aten.std.correction,
            aten.std.dim,
            aten.sum.dim_IntList,
            aten.var.correction,
            aten.var.dim,
        ),
        reduction,
    ),
    **dict.fromkeys(
        (
            aten.adaptive_avg_pool1d.default,
            aten.adaptive_avg_pool2d.default,
            aten.adaptive_max_pool2d.default,
            aten.avg_pool1d.default,
            aten.avg_pool2d.default,
            aten.max_pool1d.default,
            aten.max_pool2d.default,
            aten.upsample_bilinear2d.vec,
            aten.upsample_nearest2d.vec,
        ),
        pool,
    ),
    **dict.fromkeys((aten.softmax.int, aten._softmax.default, aten.log_softmax.int), softmax),
    TRANSPOSED: transposed_convolution,
    aten.linear.default: linear,
    aten.batch_norm.default: channel_norm,
    aten.instance_norm.default: channel_norm,
    aten.prelu.default: parametric_relu,
    aten.layer_norm.default: layer_norm,
    aten.rms_norm.default: layer_norm,
    aten.group_norm.default: group_norm,
    aten.matmul.default: matrix_product,
    aten.bmm.default: matrix_product,
    **dict.fromkeys(ADDED_PRODUCTS, matrix_product),
    aten.einsum.default: einsum,
    aten.scaled_dot_product_attention.default: attention,
    EMBEDDING: embedding,
    **SHAPE_RULES,
}


def rule_of(target: Any) -> Rule | None:
    """Return the rule of an operator, None where there is none."""
    rule = _RULES.get(target)
    if rule is None and torch.Tag.pointwise in getattr(target, "tags", ()):
        return elementwise
    return rule
