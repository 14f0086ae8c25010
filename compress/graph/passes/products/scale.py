"""Products with a number in front of other products, or behind the layer that made a value."""

from torch import fx

from edgedl.compress.graph.edit import get_tensor, insert_constant
from edgedl.compress.graph.operators.linear import MatrixProduct
from edgedl.compress.graph.operators.operator import (
    Weighted,
    aten,
    first_input,
    operands,
    set_argument,
)
from edgedl.compress.graph.operators.table import is_weighted, moves_values, row_of
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
        value, factor = operands(node)
        if not isinstance(value, fx.Node) or not isinstance(factor, (int, float)):
            return None
        scaled = value
        if row_of(value).matrix_product and len(value.users) == 1:
            scaled, right, _ = MatrixProduct.of(value)
            if scaled is right:
                return None
        elif not all(row_of(user).matrix_product for user in node.users):
            return None
        return value if scale_producer(module, scaled, factor) else None


def scale_producer(module: fx.GraphModule, value: fx.Node, factor: float) -> bool:
    """Multiply the weight and bias of the layer that made a value, if nothing else reads it.

    What moves values, and for a positive factor a ReLU, may stand in between.
    """
    while len(value.users) == 1 and isinstance(source := first_input(value), fx.Node):
        if not moves_values(value) and not (factor > 0 and row_of(value).homogeneous):
            break
        value = source
    if not is_weighted(value) or len(value.users) != 1 or not Weighted.of(value).is_stored:
        return False
    layer = Weighted.of(value)
    for name, path in (("weight", layer.weight_path), ("bias", layer.bias_path)):
        if path is not None:
            scaled = get_tensor(module, path) * factor
            stored = insert_constant(module, value, f"{path}_{value.name}_scaled", scaled)
            set_argument(value, name, stored)
    return True
