"""Write products in the two forms that quantizers know: linear layers and matmuls.

A product with a stored matrix is a linear layer, whoever wrote it and however: its weight then has
ranges per channel, and every correction and precision of weights is for it, too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import (
    get_tensor,
    insert_call,
    insert_constant,
    insert_shaped_call,
    is_constant,
    take_place,
    tensor_of,
)
from edgedl.compress.graph.operators.table import (
    HOMOGENEOUS,
    MATRIX_PRODUCTS,
    WEIGHTED,
    aten,
    moves_values,
)
from edgedl.compress.graph.passes.constants import stored_value


def open_products(module: fx.GraphModule) -> None:
    """Apply every rewrite of this module to a traced graph, in place."""
    for node in list(module.graph.nodes):
        if node.target in _REWRITES:
            _REWRITES[node.target](module, node)


def _linear_of_matmul(module: fx.GraphModule, node: fx.Node) -> None:
    """Write ``x @ w`` as a linear layer where ``w`` is a stored matrix."""
    x, stored = node.args
    _replace_by_linear(module, node, x, stored, bias=None)


def _linear_of_addmm(module: fx.GraphModule, node: fx.Node) -> None:
    """Write ``b + x @ w`` as a linear layer where both are stored."""
    bias, x, stored = node.args
    values = stored_value(module, bias)
    if values is None or any(factor != 1 for factor in node.kwargs.values()):
        return
    width = tensor_of(module, node).shape[-1]
    if values.numel() != width:
        return
    _replace_by_linear(module, node, x, stored, values.flatten())


def _replace_by_linear(
    module: fx.GraphModule, node: fx.Node, x: Any, stored: Any, bias: Tensor | None
) -> None:
    matrix = stored_value(module, stored)
    if matrix is None or matrix.ndim != 2 or stored_value(module, x) is not None:
        return
    constants = [_weight(module, node, matrix.t(), stored)]
    if bias is not None:
        constants.append(insert_constant(module, node, f"{node.name}_bias", bias))
    linear = insert_call(module.graph, node, aten.linear.default, x, *constants)
    linear.meta["val"] = node.meta["val"]
    take_place(module, node, linear)


def _weight(module: fx.GraphModule, node: fx.Node, value: Tensor, source: fx.Node) -> fx.Node:
    """Return a constant of a value, the one it is made of if that is the same.

    Another's weight that is turned, and turned back by its reader, stays one tensor.
    """
    while source.op != "get_attr" and len(source.all_input_nodes) == 1:
        (source,) = source.all_input_nodes
    path = str(source.target) if is_constant(source) else "weight"
    if is_constant(source) and torch.equal(get_tensor(module, path), value):
        return source
    return insert_constant(module, node, f"{path}_{node.name}", value)


def _scale_in_producer(module: fx.GraphModule, node: fx.Node) -> None:
    """Scale the layer before a product in place of what it makes, or of the product itself.

    Attention divides its scores by a number, before or behind the product that makes them.
    """
    value, factor = node.args
    if not isinstance(value, fx.Node) or not isinstance(factor, (int, float)):
        return
    scaled: Any = value
    if value.target in MATRIX_PRODUCTS and len(value.users) == 1:
        if value.args[0] is value.args[1]:
            return
        scaled = value.args[0]
    elif any(user.target not in MATRIX_PRODUCTS for user in node.users):
        return
    if isinstance(scaled, fx.Node) and scale_producer(module, scaled, factor):
        node.replace_all_uses_with(value)
        module.graph.erase_node(node)


def scale_producer(module: fx.GraphModule, value: fx.Node, factor: float) -> bool:
    """Multiply the weight and bias of the layer that made a value, if nothing else reads it.

    What moves values, and for a positive factor a ReLU, may stand in between.
    """
    while len(value.users) == 1 and isinstance(value.args[0] if value.args else None, fx.Node):
        if not moves_values(value) and not (factor > 0 and value.target in HOMOGENEOUS):
            break
        value = value.args[0]  # type: ignore[assignment]
    if value.target not in WEIGHTED or len(value.users) != 1:
        return False
    constants = {i: c for i, c in enumerate(value.args[:3]) if i and c is not None}
    if not all(is_constant(c) for c in constants.values()):
        return False
    for index, constant in constants.items():
        path = f"{constant.target}_{value.name}_scaled"  # type: ignore[union-attr]
        scaled = get_tensor(module, str(constant.target)) * factor  # type: ignore[union-attr]
        value.update_arg(index, insert_constant(module, value, path, scaled))
    return True


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


def _open_einsum(module: fx.GraphModule, node: fx.Node) -> None:
    """Write an einsum that is one product as a matmul, or a linear layer, between moves.

    One that sums over a stored tensor, without an axis that both share, is a linear layer.
    """
    equation, operands = str(node.args[0]).replace(" ", ""), list(node.args[1])  # type: ignore[arg-type]
    letters, _, result = equation.partition("->")
    names = letters.split(",")
    if "->" not in equation or "." in equation or len(names) != 2:
        return
    if stored_value(module, operands[0]) is not None:
        operands.reverse()
        names.reverse()
    product = _Product.of(names[0], names[1], result)
    if product is None or not product.left:
        return
    stored = stored_value(module, operands[1])
    if stored is None:
        found = _matmul_of_einsum(module, node, product, names, operands)
    elif not product.batch:
        found = _linear_of_einsum(module, node, product, names, operands[0], stored)
    else:
        return
    found = _permute(module, node, found, product.batch + product.left + product.right, result)
    take_place(module, node, found)


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


_REWRITES: dict[Any, Callable[[fx.GraphModule, fx.Node], None]] = {
    aten.einsum.default: _open_einsum,
    aten.matmul.default: _linear_of_matmul,
    aten.mm.default: _linear_of_matmul,
    aten.addmm.default: _linear_of_addmm,
    aten.mul.Tensor: _scale_in_producer,
}
