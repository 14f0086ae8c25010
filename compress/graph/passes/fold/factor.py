"""Products with a number that stand between layers."""

from torch import fx

from edgedl.compress.graph.edit import get_tensor, insert_constant, is_constant
from edgedl.compress.graph.operators.table import TRANSPOSED, WEIGHTED, aten
from edgedl.compress.graph.passes.fold.channels import path_of
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.products.scale import scale_producer


class FoldFactor(Pass):
    """Fold a product with a number into the layer before a ReLU, or into the one behind it.

    Before: ``mul(relu(conv2d(x, w, b)), 2)``. After: ``relu(conv2d(x, 2 * w, 2 * b))``.
    """

    requires = (ArithmeticForms,)
    operators = frozenset({aten.mul.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold one product."""
        value, factor = node.args[:2]
        if not isinstance(value, fx.Node) or not isinstance(factor, (int, float)):
            return None
        if value.target in (*WEIGHTED, TRANSPOSED):
            return None
        if not scale_producer(module, value, float(factor)):
            behind = next(iter(node.users)) if len(node.users) == 1 else None
            if behind is None or behind.target not in WEIGHTED or behind.args[0] is not node:
                return None
            if not is_constant(behind.args[1]):
                return None
            path = path_of(behind.args[1])
            scaled = get_tensor(module, path) * float(factor)
            behind.update_arg(1, insert_constant(module, behind, f"{path}_{behind.name}", scaled))
        return value
