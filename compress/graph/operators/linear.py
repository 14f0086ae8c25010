"""Linear layers, and products of two activations."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.operator import (
    AxesOf,
    Operator,
    Product,
    Ranges,
    Weighted,
    always,
    argument,
    aten,
    operands,
)
from edgedl.compress.graph.sizes import BATCH, places_of

# Weight [out, in], bias [out].
Linear = Weighted


class MatrixProduct(NamedTuple):
    """[..., m, k] times [..., k, n]; some overloads add a tensor to it, or None."""

    left: fx.Node
    right: fx.Node
    added: fx.Node | None = None

    @classmethod
    def of(cls, node: fx.Node) -> "MatrixProduct":
        """Read a node; each overload has names of its own for the same."""
        *added, left, right = operands(node, 3 if node.target in _ADDING else 2)
        return cls(left, right, *added)


_ADDING = (aten.baddbmm.default, aten.addmm.default)


def product_of(axes: Sequence[Axis]) -> Product:
    """Return the multiply-accumulates of one sample, if the axes are those of a whole batch."""
    whole = math.prod(a.size for a in axes) % BATCH == 0
    return Product(tuple(axes), samples=BATCH if whole else 1)


def _join_linear(axes: JoinedAxes, node: fx.Node) -> None:
    """Weight [out, in]: the last axis of the result and of the input."""
    view = Linear.of(node)
    weight, result = axes.of(view.weight), axes.of(node)
    axes.join(node, axes.of(view.input), [*result[:-1], weight[1]])
    axes.join(node, [weight[0]], result[-1:])
    axes.join_broadcast(node, axes.of(view.bias), result[-1:])


def _linear_macs(of: AxesOf, node: fx.Node) -> list[Product]:
    return [Product(tuple(of(Linear.of(node).weight)), places_of(node, channel_axis=-1))]


def _join_product(axes: JoinedAxes, node: fx.Node) -> None:
    """[..., m, k] times [..., k, n]; what is added to it first is as large."""
    view, result = MatrixProduct.of(node), axes.of(node)
    axes.join_broadcast(node, axes.of(view.added), result)
    a, b = axes.of(view.left), axes.of(view.right)
    if len(a) < 2 or len(b) < 2:
        axes.freeze([a, b, result], f"'{node.name}' multiplies a vector")
        return
    axes.join(node, [a[-1], a[-2], b[-1]], [b[-2], result[-2], result[-1]])
    for operand in (a, b):
        axes.join_broadcast(node, operand[:-2], result[:-2])


def _product_macs(of: AxesOf, node: fx.Node) -> list[Product]:
    return [product_of([*of(node), of(MatrixProduct.of(node).left)[-1]])]


def _join_einsum(axes: JoinedAxes, node: fx.Node) -> None:
    """Axes of one letter are the same."""
    found = _letters(axes.of, node)
    for own in found.values():
        for axis in own:
            axes.join(node, [own[0]], [axis])
    if not found:
        tensors = [*map(axes.of, argument(node, "tensors")), axes.of(node)]
        axes.freeze(tensors, f"'{node.name}' is written in a way that pruning does not read")


def _einsum_macs(of: AxesOf, node: fx.Node) -> list[Product]:
    found = _letters(of, node)
    return [product_of([own[0] for own in found.values()])] if found else []


def _letters(of: AxesOf, node: fx.Node) -> dict[str, list[Axis]]:
    """Return the axes of each letter of an einsum.

    None are returned where a letter stands twice in a tensor, or dots stand for several axes.
    """
    equation = str(argument(node, "equation")).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    written = [*terms.split(","), result]
    if not arrow or "." in terms or any(len(set(term)) < len(term) for term in written):
        return {}
    found: dict[str, list[Axis]] = {}
    for term, own in zip(written, [*map(of, argument(node, "tensors")), of(node)], strict=True):
        for letter, axis in zip(term, own, strict=True):
            found.setdefault(letter, []).append(axis)
    return found


LINEAR = Operator(
    (aten.linear.default,),
    Ranges.COMPUTES,
    folds_activation=always,
    weight_axis=0,
    channel_axis=-1,
    macs=_linear_macs,
    join_axes=_join_linear,
)
ROWS = (
    LINEAR,
    *(
        Operator((overload,), ranges, macs=_product_macs, join_axes=_join_product)
        for overload, ranges in (
            (aten.matmul.default, Ranges.COMPUTES),
            (aten.bmm.default, Ranges.COMPUTES),
            # Products behind what is added to them.
            (aten.baddbmm.default, Ranges.FLOAT),
            (aten.addmm.default, Ranges.FLOAT),
        )
    ),
    Operator((aten.einsum.default,), macs=_einsum_macs, join_axes=_join_einsum),
)
