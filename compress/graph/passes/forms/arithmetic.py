"""Other forms of sums and products."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import fx

from edgedl.compress.graph.edit import Insert, insert_constant, inserter
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.forms.form_pass import Arguments, Form, FormPass
from edgedl.compress.graph.passes.stored import stored_value
from edgedl.compress.graph.values import is_floating, value_of


def _square(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    if given.get("exponent", 2) != 2:
        return None
    return inserter(module, node)(aten.mul.Tensor, given["self"], given["self"])


def _negative(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    if not is_floating(node):
        return None
    return inserter(module, node)(aten.mul.Tensor, given["self"], -1.0)


def _mul_of_div(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    divisor, insert = given["other"], inserter(module, node)
    if isinstance(divisor, (int, float)) and divisor:
        return insert(aten.mul.Tensor, given["self"], 1 / divisor)
    stored = stored_value(module, divisor)
    if stored is None or not stored.is_floating_point() or not stored.all():
        return None
    factor = insert_constant(module, node, f"{node.name}_factor", 1 / stored)
    return insert(aten.mul.Tensor, given["self"], factor)


def _add_of_rsub(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    number = given["other"]
    if given["alpha"] != 1 or not isinstance(number, (int, float)) or not is_floating(node):
        return None
    insert = inserter(module, node)
    return insert(aten.add.Tensor, insert(aten.mul.Tensor, given["self"], -1.0), number)


def _add(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a multiple that is added as a product of its own."""
    if given["alpha"] == 1:
        return None
    insert = inserter(module, node)
    return insert(aten.add.Tensor, given["self"], _multiple(insert, given, given["alpha"]))


def _add_of_sub(module: fx.GraphModule, node: fx.Node, given: Arguments) -> fx.Node | None:
    """Write a difference from something stored as a sum.

    ONNX Runtime has an integer kernel for sums alone, and TFLite's converter takes a stored tensor
    minus another for the other way round.
    """
    a, b, insert = given["self"], given["other"], inserter(module, node)
    if not is_floating(node):
        return None
    if isinstance(b, (int, float)):
        return insert(aten.add.Tensor, a, -b * given["alpha"])
    stored = stored_value(module, b)
    if stored is not None:
        by = insert_constant(
            module, node, f"{node.name}_by", stored.to(value_of(node).dtype) * -given["alpha"]
        )
        return insert(aten.add.Tensor, a, by)
    if stored_value(module, a) is not None or given["alpha"] != 1:
        return insert(aten.add.Tensor, _multiple(insert, given, -given["alpha"]), a)
    return None


def _multiple(insert: Insert, given: Arguments, factor: float) -> Any:
    """Return a multiple of an operator's second argument."""
    other = given["other"]
    if isinstance(other, (int, float)):
        return other * factor
    return other if factor == 1 else insert(aten.mul.Tensor, other, float(factor))


class ArithmeticForms(FormPass):
    """Write differences, quotients, squares and multiples that are added as sums and products.

    Before: ``sub(1, x)``, ``div(x, 4)``, ``pow(x, 2)``, ``add(x, y, alpha=3)``.
    After: ``add(mul(x, -1), 1)``, ``mul(x, 0.25)``, ``mul(x, x)``, ``add(x, mul(y, 3))``.
    """

    operators: ClassVar[Mapping[Any, Form]] = {
        aten.square.default: _square,
        aten.pow.Tensor_Scalar: _square,
        aten.neg.default: _negative,
        aten.div.Tensor: _mul_of_div,
        aten.div.Scalar: _mul_of_div,
        aten.rsub.Scalar: _add_of_rsub,
        aten.add.Tensor: _add,
        aten.sub.Tensor: _add_of_sub,
    }
    gone = frozenset({aten.square.default})
