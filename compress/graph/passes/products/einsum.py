"""Einsums that are one product."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from edgedl.compress.graph.edit import (
    insert_constant,
    insert_shaped_call,
    tensor_of,
)
from edgedl.compress.graph.operators.table import aten
from edgedl.compress.graph.passes.forms.moves import MoveForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import stored_value


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
        equation, operands = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
        letters, _, result = equation.partition("->")
        names = letters.split(",")
        if "->" not in equation or "." in equation or len(names) != 2:
            return None
        if stored_value(module, operands[0]) is not None:
            operands.reverse()
            names.reverse()
        product = _Product.of(names[0], names[1], result)
        if product is None or not product.left:
            return None
        stored = stored_value(module, operands[1])
        if stored is None:
            found = _matmul_of_einsum(module, node, product, names, operands)
        elif not product.batch:
            found = _linear_of_einsum(module, node, product, names, operands[0], stored)
        else:
            return None
        found = _permute(module, node, found, product.batch + product.left + product.right, result)
        return found


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


def _matmul_of_einsum(
    module: fx.GraphModule,
    node: fx.Node,
    product: _Product,
    names: list[str],
    operands: list[fx.Node],
) -> fx.Node:
    """Return the matmul of an einsum of two activations, [batch..., left..., right...]."""
    at = len(product.batch)
    a = _permute(module, node, operands[0], names[0], product.batch + product.left + product.summed)
    b = _permute(
        module, node, operands[1], names[1], product.batch + product.summed + product.right
    )
    left = [tensor_of(module, a).shape[at + i] for i in range(len(product.left))]
    right = list(tensor_of(module, b).shape[at + len(product.summed) :])
    a = _merge(module, node, a, at, len(left))
    a = _merge(module, node, a, at + 1, len(product.summed))
    b = _merge(module, node, b, at, len(product.summed))
    b = _merge(module, node, b, at + 1, len(right))
    found = insert_shaped_call(module, node, aten.matmul.default, a, b)
    return _part(module, node, _part(module, node, found, at + 1, right), at, left)


def _linear_of_einsum(
    module: fx.GraphModule,
    node: fx.Node,
    product: _Product,
    names: list[str],
    x: fx.Node,
    stored: Tensor,
) -> fx.Node:
    """Return the linear layer of an einsum with a stored tensor, [left..., right...]."""
    at = len(product.left)
    x = _permute(module, node, x, names[0], product.left + product.summed)
    x = _merge(module, node, x, at, len(product.summed))
    turned = stored.permute([names[1].index(c) for c in product.right + product.summed])
    right = list(turned.shape[: len(product.right)])
    matrix = turned.reshape(math.prod(right), -1)
    weight = insert_constant(module, node, f"{node.name}_weight", matrix)
    found = insert_shaped_call(module, node, aten.linear.default, x, weight)
    return _part(module, node, found, at, right)


def _merge(module: fx.GraphModule, before: fx.Node, value: fx.Node, at: int, count: int) -> fx.Node:
    """Make one axis of several, or of none, from position ``at`` on."""
    if count == 0:
        return insert_shaped_call(module, before, aten.unsqueeze.default, value, at)
    if count == 1:
        return value
    return insert_shaped_call(module, before, aten.flatten.using_ints, value, at, at + count - 1)


def _part(
    module: fx.GraphModule, before: fx.Node, value: fx.Node, at: int, sizes: list[Any]
) -> fx.Node:
    """Undo ``_merge``; one size may be free."""
    if not sizes:
        return insert_shaped_call(module, before, aten.squeeze.dim, value, at)
    if len(sizes) == 1:
        return value
    known = [size if isinstance(size, int) else -1 for size in sizes]
    return insert_shaped_call(module, before, aten.unflatten.int, value, at, known)


def _permute(
    module: fx.GraphModule, before: fx.Node, value: fx.Node, have: str, want: str
) -> fx.Node:
    """Insert the permutation that brings axes into another order, unless it is that already."""
    if have == want:
        return value
    axes = [have.index(c) for c in want]
    return insert_shaped_call(module, before, aten.permute.default, value, axes)
