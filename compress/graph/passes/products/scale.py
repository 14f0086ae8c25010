"""Products with a number in front of other products, or behind the layer that made a value."""

from typing import Any

from torch import fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, is_constant
from edgedl.compress.graph.operators.table import (
    HOMOGENEOUS,
    MATRIX_PRODUCTS,
    WEIGHTED,
    aten,
    moves_values,
)
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.products.linear import LinearOfStored


class ScaleInProducer(Pass):
    """Scale the layer before a product in place of what it makes, or of the product itself.

    Attention divides its scores by a number, before or behind the product that makes them.

    Before: ``mul(matmul(linear(x, w), k), 0.5)``. After: ``matmul(linear(x, 0.5 * w), k)``.
    """

    requires = (ArithmeticForms, LinearOfStored)
    operators = frozenset({aten.mul.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Let the layer before one product with a number make what that makes."""
        value, factor = node.args
        if not isinstance(value, fx.Node) or not isinstance(factor, (int, float)):
            return None
        scaled: Any = value
        if value.target in MATRIX_PRODUCTS and len(value.users) == 1:
            if value.args[0] is value.args[1]:
                return None
            scaled = value.args[0]
        elif any(user.target not in MATRIX_PRODUCTS for user in node.users):
            return None
        if not isinstance(scaled, fx.Node) or not scale_producer(module, scaled, factor):
            return None
        return value


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
