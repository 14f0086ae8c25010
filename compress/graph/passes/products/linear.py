"""Products with a stored matrix."""

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, insert_call, insert_constant, is_constant
from edgedl.compress.graph.operators.linear import MatrixProduct
from edgedl.compress.graph.operators.operator import argument, aten
from edgedl.compress.graph.passes.forms.moves import MoveForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import stored_value
from edgedl.compress.graph.values import shape_of


class LinearOfStored(Pass):
    """Write a product with a stored matrix as a linear layer, whoever wrote it and however.

    Its weight then has ranges per channel, and every correction and precision of weights is for
    it, too.

    Before: ``matmul(x, w)``, ``addmm(b, x, w)``. After: ``linear(x, w')``, ``linear(x, w', b)``.
    """

    requires = (MoveForms,)
    operators = frozenset({aten.matmul.default, aten.mm.default, aten.addmm.default})
    takes_name = True

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one product as a linear layer where its second operand is a stored matrix."""
        x, stored, added = MatrixProduct.of(node)
        matrix, bias = stored_value(module, stored), stored_value(module, added)
        if added is not None:
            if bias is None or any(argument(node, factor) != 1 for factor in ("beta", "alpha")):
                return None
            if bias.numel() != shape_of(node)[-1]:
                return None
        if matrix is None or matrix.ndim != 2 or stored_value(module, x) is not None:
            return None
        constants = [_weight(module, node, matrix.t(), stored)]
        if bias is not None:
            path = f"{node.name}_bias"
            constants.append(insert_constant(module, node, path, bias.flatten()))
        return insert_call(module.graph, node, aten.linear.default, x, *constants)


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
