"""Attention in one operator."""

from dataclasses import dataclass

from torch import fx

from edgedl.compress.graph.axes import Axis
from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.linear import product_of
from edgedl.compress.graph.operators.operator import AxesOf, Operator, Product, View, aten


@dataclass(frozen=True)
class Attention(View):
    """[..., T, D], [..., S, D], [..., S, E] -> [..., T, E].

    Attributes:
        enable_gqa: heads of keys and values may be fewer, [..., H, S, D] with H dividing the
            queries' heads.
    """

    query: fx.Node
    key: fx.Node
    value: fx.Node
    attn_mask: fx.Node | None
    dropout_p: float
    is_causal: bool
    scale: float | None
    enable_gqa: bool


def _join_axes(axes: JoinedAxes, node: fx.Node) -> None:
    """D stays, since it scales the scores, and S, since the weights of its positions sum to one."""
    view = Attention.of(node)
    query, key, value = (axes.of(x) for x in (view.query, view.key, view.value))
    result = axes.of(node)
    axes.join(node, [query[-1], key[-2], value[-1]], [key[-1], value[-2], result[-1]])
    axes.freeze([query[-1]], f"the width of a head of '{node.name}' scales its scores")
    axes.freeze([key[-2]], f"'{node.name}' sums to one along it")
    if view.is_causal:
        axes.freeze([query[-2]], f"the order along it matters to '{node.name}'")
    axes.join(node, query[:-1], result[:-1])
    if view.enable_gqa:
        # Every head of keys and values serves as many heads of queries, those beside each other.
        shared = Axis(query[-3].size // key[-3].size)
        axes.join(node, [query[-3], key[-3]], [Axis.product([key[-3], shared]), value[-3]])
        result = [*result[:-3], key[-3], *result[-2:]]
    for operand in (key, value):
        axes.join_broadcast(node, operand[:-2], result[:-2])
    axes.join_broadcast(node, axes.of(view.attn_mask), [*result[:-1], key[-2]])


def _macs(of: AxesOf, node: fx.Node) -> list[Product]:
    view = Attention.of(node)
    query, key = of(view.query), of(view.key)
    return [product_of([*query, key[-2]]), product_of([*of(node), key[-2]])]


ATTENTION = Operator((aten.scaled_dot_product_attention.default,), macs=_macs, join_axes=_join_axes)
ROWS = (ATTENTION,)
