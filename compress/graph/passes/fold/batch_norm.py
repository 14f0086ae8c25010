"""Batch norms in evaluation."""

import torch
from torch import fx

from edgedl.compress.graph.edit import constant_of, insert_constant, inserter, is_constant
from edgedl.compress.graph.operators.normalization import BatchNorm
from edgedl.compress.graph.operators.operator import Weighted, aten
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.fold.channel_norm import is_far
from edgedl.compress.graph.passes.fold.channels import insert_depthwise, scale_output_channels
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.series import SeriesAsPictures
from edgedl.compress.graph.passes.stored import StoreComputed
from edgedl.compress.graph.values import shape_of


class FoldBatchNorm(Pass):
    """Fold an inference-mode batch norm into the convolution or linear before it.

    A batch norm without such an operator of its own becomes a depthwise convolution of one place
    (for [N, C, H, W] and [N, C, T]) or a product and a sum (for [N, C], unless they would be less
    exact).

    Before: ``batch_norm(conv2d(x, w, b))``. After: ``conv2d(x, w * factor, b * factor + shift)``.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", 2018, section 3.2, equation 14.
    """

    requires = (StoreComputed, SeriesAsPictures)
    operators = frozenset({aten.batch_norm.default})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold one batch norm, or write it as a depthwise convolution."""
        norm = BatchNorm.of(node)
        producer, axes = norm.input, len(shape_of(node))
        if not all(is_constant(n) for n in node.all_input_nodes if n is not producer):
            return None
        stored = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        gamma, beta, mean, variance = (constant_of(module, tensor) for tensor in stored)
        if mean is None or variance is None:
            return None
        deviation = torch.sqrt(variance + norm.eps)
        factor = 1 / deviation if gamma is None else gamma / deviation
        shift = -mean * factor if beta is None else -mean * factor + beta
        row = row_of(producer)
        # Behind a linear layer axis 1 is its output only for [N, C]; for [N, T, C] it is time.
        same_axis = row.channel_axis == 1 or axes == 2
        is_own = row.has_weight and len(producer.users) == 1 and Weighted.of(producer).is_stored
        if is_own and same_axis:
            scale_output_channels(module, producer, factor, shift)
            return producer
        if axes in (3, 4):
            return insert_depthwise(module, node, producer, factor, shift)
        if axes != 2 or is_far(shift):
            return None
        insert = inserter(module, node)
        scaled = insert(
            aten.mul.Tensor, producer, insert_constant(module, node, f"{node.name}_factor", factor)
        )
        return insert(
            aten.add.Tensor, scaled, insert_constant(module, node, f"{node.name}_shift", shift)
        )
