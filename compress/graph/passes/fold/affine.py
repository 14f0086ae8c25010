"""Products and sums with numbers and stored tensors of one value per channel."""

from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import get_tensor, is_constant
from edgedl.compress.graph.operators.table import LINEAR, MULTIPLY, TRANSPOSED, WEIGHTED, aten
from edgedl.compress.graph.passes.fold.channels import (
    path_of,
    scale_output_channels,
)
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import StoreComputed


class FoldAffine(Pass):
    """Fold a product or sum with a number, or a stored one per channel, into the layer before it.

    The result is exact: nothing but that reads the layer.

    Before: ``add(mul(conv2d(x, w, b), k), c)``. After: ``conv2d(x, w * k, b * k + c)``.
    """

    requires = (ArithmeticForms, StoreComputed)
    operators = frozenset({aten.mul.Tensor, aten.add.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold one product or sum."""
        producer, operand = node.args[:2]
        if is_constant(producer):
            producer, operand = operand, producer
        if not isinstance(producer, fx.Node) or producer.target not in (*WEIGHTED, TRANSPOSED):
            return None
        constants = [c for c in producer.args[1:3] if c is not None]
        if len(producer.users) > 1 or not all(map(is_constant, constants)):
            return None
        if tuple(producer.meta["val"].shape) != tuple(node.meta["val"].shape):
            return None
        values = _per_channel(module, node, operand, -1 if producer.target is LINEAR else 1)
        if values is None:
            return None
        if node.target is MULTIPLY:
            factor, shift = values, torch.zeros_like(values)
        else:
            factor, shift = torch.ones_like(values), values
        scale_output_channels(module, producer, factor, shift)
        return producer


def _per_channel(module: fx.GraphModule, node: fx.Node, operand: Any, axis: int) -> Tensor | None:
    """Return a number or a stored tensor as one value per channel; None if it is something else."""
    shape = node.meta["val"].shape
    if isinstance(operand, (int, float)):
        return torch.full((shape[axis],), float(operand))
    if not is_constant(operand):
        return None
    values = get_tensor(module, path_of(operand))
    if values.numel() == 1:
        return values.flatten().expand(shape[axis])
    sizes = [1] * (len(shape) - values.ndim) + list(values.shape)
    return values.flatten() if sizes[axis] == values.numel() == shape[axis] else None
