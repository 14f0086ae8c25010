"""Batch norms in evaluation."""

from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import get_tensor, is_constant
from edgedl.compress.graph.operators.table import LINEAR, TRANSPOSED, WEIGHTED, aten
from edgedl.compress.graph.passes.fold.channels import (
    insert_depthwise,
    path_of,
    scale_output_channels,
)
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.series import SeriesAsPictures
from edgedl.compress.graph.passes.stored import StoreComputed


class FoldBatchNorm(Pass):
    """Fold an inference-mode batch norm into the convolution or linear before it.

    A batch norm without such an operator of its own becomes a depthwise convolution of one place
    (for [N, C, H, W] and [N, C, T]) or stays as it is.

    Before: ``batch_norm(conv2d(x, w, b))``. After: ``conv2d(x, w * factor, b * factor + shift)``.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", 2018, section 3.2, equation 14.
    """

    requires = (StoreComputed, SeriesAsPictures)
    operators = frozenset({aten.batch_norm.default})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold one batch norm, or write it as a depthwise convolution."""
        arguments: tuple[Any, ...] = node.args
        producer, gamma, beta, mean, variance = arguments[:5]
        if not isinstance(producer, fx.Node) or mean is None or variance is None:
            return None
        deviation = torch.sqrt(get_tensor(module, path_of(variance)) + float(arguments[7]))
        factor = 1 / deviation if gamma is None else get_tensor(module, path_of(gamma)) / deviation
        shift = -get_tensor(module, path_of(mean)) * factor
        if beta is not None:
            shift = shift + get_tensor(module, path_of(beta))
        layers = (*WEIGHTED, TRANSPOSED)
        has_own_weight = producer.target in layers and is_constant(producer.args[1])
        # Behind a linear layer axis 1 is its output only for [N, C]; for [N, T, C] it is time.
        same_axis = producer.target is not LINEAR or node.meta["val"].ndim == 2
        if has_own_weight and same_axis and len(producer.users) == 1:
            scale_output_channels(module, producer, factor, shift)
            return producer
        if node.meta["val"].ndim in (3, 4):
            return insert_depthwise(module, node, producer, factor, shift)
        return None
