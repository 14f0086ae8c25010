"""Einsums that are one product."""

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from edgedl.compress.graph.edit import Insert, insert_constant, inserter
from edgedl.compress.graph.operators.operator import argument, aten
from edgedl.compress.graph.passes.forms.moves import MoveForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import stored_value
from edgedl.compress.graph.values import shape_of


class OpenEinsum(Pass):
    """Write an einsum that is one product as a matmul, or a linear layer, between moves.

    One that sums over a stored tensor, without an axis that both share, is a linear layer.

    Before: ``einsum("bhqd,bhkd->bhqk", x, y)``, ``einsum("bc,co->bo", x, w)``.
    After: ``matmul(x, permute(y, [0, 1, 3, 2]))``, ``linear(x, w')``.
    """

    requires = (MoveForms,)
    operators = frozenset({aten.einsum.default})
    takes_name = True

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one einsum as a product."""
        operands, insert = list(argument(node, "tensors")), inserter(module, node)
        terms, arrow, result = argument(node, "equation").replace(" ", "").partition("->")
        names = terms.split(",")
        if not arrow or "." in terms or len(names) != 2:
            return None
        if stored_value(module, operands[0]) is not None:
            operands.reverse()
            names.reverse()
        product = _Product.of(names[0], names[1], result)
        if product is None or not product.left:
            return None
        stored = stored_value(module, operands[1])
        if stored is None:
            found = _matmul(insert, product, names, operands)
        elif not product.batch:
            outputs = [stored.shape[names[1].index(c)] for c in product.right]
            order = [names[1].index(c) for c in product.right + product.summed]
            matrix = stored.permute(order).reshape(math.prod(outputs), -1)
            x = _permute(insert, operands[0], names[0], product.left + product.summed)
            x = _merge(insert, x, len(product.left), len(product.summed))
            weight = insert_constant(module, node, f"{node.name}_weight", matrix)
            found = insert(aten.linear.default, x, weight)
            found = _part(insert, found, len(product.left), outputs)
        else:
            return None
        return _permute(insert, found, product.batch + product.left + product.right, result)


@dataclass(frozen=True)
class _Product:
    """How the letters of an einsum of two operands are those of a matmul.

    Attributes:
        batch: in both operands and the result.
        left: in the first and the result.
        right: in the second and the result.
        summed: in both operands alone.
    """

    batch: str
    left: str
    right: str
    summed: str

    @classmethod
    def of(cls, a: str, b: str, result: str) -> "_Product | None":
        """Return the letters by kind; None if the einsum is something else than a product."""
        if any(len(set(letters)) != len(letters) for letters in (a, b, result)):
            return None
        product = cls(
            batch="".join(c for c in a if c in b and c in result),
            left="".join(c for c in a if c not in b),
            right="".join(c for c in b if c not in a),
            summed="".join(c for c in a if c in b and c not in result),
        )
        found = product.batch + product.left + product.right
        return product if product.summed and sorted(found) == sorted(result) else None


def _matmul(
    insert: Insert, product: _Product, names: list[str], operands: list[fx.Node]
) -> fx.Node:
    """Return the matmul of an einsum of two activations, [batch..., left..., right...]."""
    at, summed = len(product.batch), len(product.summed)
    a = _permute(insert, operands[0], names[0], product.batch + product.left + product.summed)
    b = _permute(insert, operands[1], names[1], product.batch + product.summed + product.right)
    left = list(shape_of(a)[at : at + len(product.left)])
    right = list(shape_of(b)[at + summed :])
    a = _merge(insert, _merge(insert, a, at, len(left)), at + 1, summed)
    b = _merge(insert, _merge(insert, b, at, summed), at + 1, len(right))
    found = insert(aten.matmul.default, a, b)
    return _part(insert, _part(insert, found, at + 1, right), at, left)


def _merge(insert: Insert, value: fx.Node, at: int, count: int) -> fx.Node:
    """Make one axis of several, or of none, from position ``at`` on."""
    if count == 0:
        return insert(aten.unsqueeze.default, value, at)
    return value if count == 1 else insert(aten.flatten.using_ints, value, at, at + count - 1)


def _part(insert: Insert, value: fx.Node, at: int, sizes: list[Any]) -> fx.Node:
    """Undo ``_merge``; one size may be free."""
    if not sizes:
        return insert(aten.squeeze.dim, value, at)
    known = [size if isinstance(size, int) else -1 for size in sizes]
    return value if len(sizes) == 1 else insert(aten.unflatten.int, value, at, known)


def _permute(insert: Insert, value: fx.Node, have: str, want: str) -> fx.Node:
    """Insert the permutation that brings axes into another order, unless it is that already."""
    axes = [have.index(c) for c in want]
    return value if have == want else insert(aten.permute.default, value, axes)
