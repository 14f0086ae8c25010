"""Products and sums with numbers and stored tensors of one value per channel."""

import torch
from torch import fx

from edgedl.compress.graph.edit import is_constant
from edgedl.compress.graph.operators.operator import Weighted, aten, operands
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.fold.chain import per_channel
from edgedl.compress.graph.passes.fold.channels import scale_output_channels
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import StoreComputed
from edgedl.compress.graph.values import shape_of


class FoldAffine(Pass):
    """Fold a product or sum with a number, or a stored one per channel, into the layer before it.

    The result is exact: nothing but that reads the layer.

    Before: ``add(mul(conv2d(x, w, b), k), c)``. After: ``conv2d(x, w * k, b * k + c)``.
    """

    requires = (ArithmeticForms, StoreComputed)
    operators = frozenset({aten.mul.Tensor, aten.add.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold one product or sum."""
        producer, operand = operands(node)
        if is_constant(producer):
            producer, operand = operand, producer
        if not isinstance(producer, fx.Node) or not row_of(producer).has_weight:
            return None
        if len(producer.users) > 1 or not Weighted.of(producer).is_stored:
            return None
        if shape_of(producer) != shape_of(node):
            return None
        axis = row_of(producer).channel_axis
        constant = per_channel(module, node, operand, axis)
        if constant is None:
            return None
        values = constant.expand(shape_of(node)[axis])
        if node.target is aten.mul.Tensor:
            factor, shift = values, torch.zeros_like(values)
        else:
            factor, shift = torch.ones_like(values), values
        scale_output_channels(module, producer, factor, shift)
        return producer
