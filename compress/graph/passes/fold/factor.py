"""Products with a number that stand between layers."""

from torch import fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, only_reader
from edgedl.compress.graph.operators.operator import Weighted, aten, operands, set_argument
from edgedl.compress.graph.operators.table import has_stored_weight, row_of
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.products.scale import scale_producer
from edgedl.compress.graph.values import is_floating


class FoldFactor(Pass):
    """Fold a product with a number into the layer before a ReLU, or into the one behind it.

    Before: ``mul(relu(conv2d(x, w, b)), 2)``. After: ``relu(conv2d(x, 2 * w, 2 * b))``.
    """

    requires = (ArithmeticForms,)
    operators = frozenset({aten.mul.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold one product."""
        value, factor = operands(node)
        if not isinstance(value, fx.Node) or not isinstance(factor, (int, float)):
            return None
        if row_of(value).has_weight or not is_floating(value):
            return None
        if not scale_producer(module, value, float(factor)):
            behind = only_reader(node)
            if behind is None or not has_stored_weight(behind):
                return None
            layer = Weighted.of(behind)
            if layer.input is not node:
                return None
            path = layer.weight_path
            scaled = get_tensor(module, path) * float(factor)
            stored = insert_constant(module, behind, f"{path}_{behind.name}", scaled)
            set_argument(behind, "weight", stored)
        return value
