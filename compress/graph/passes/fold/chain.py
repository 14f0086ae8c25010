"""Sums and products with numbers and stored tensors, one behind the other."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import constant_of, is_constant, only_reader
from edgedl.compress.graph.operators.operator import aten, operands
from edgedl.compress.graph.values import shape_of, value_of

STEPS = (aten.add.Tensor, aten.mul.Tensor)


@dataclass(frozen=True)
class AffineChain:
    """``factor * source + shift``, as sums and products compute it.

    Attributes:
        source: the value before the first of them.
        nodes: of the sums and products, the last one first.
        factor, shift: one value for each place of an axis, float32 [C].
        by_channel: of each node, whether its constant has values of its own for the channels.
    """

    source: fx.Node
    nodes: tuple[fx.Node, ...]
    factor: Tensor
    shift: Tensor
    by_channel: tuple[bool, ...]

    @classmethod
    def of(cls, module: fx.GraphModule, node: fx.Node, axis: int) -> "AffineChain | None":
        """Return the longest chain that ends in a node.

        None where it is no such operator of float32, or there is no such axis or one of any length.
        Nothing else reads the values in between.

        Args:
            module: of the node.
            node: the last sum or product.
            axis: of the channels.
        """
        if not _has_axis(node, axis):
            return None
        factor, shift = torch.ones(()), torch.zeros(())
        nodes: list[fx.Node] = []
        by_channel: list[bool] = []
        source = node
        while not nodes or only_reader(source) is nodes[-1]:
            step = _step(module, source, axis)
            if step is None:
                break
            nodes.append(source)
            value, constant = step
            by_channel.append(constant.ndim == 1)
            if source.target is aten.mul.Tensor:
                factor = factor * constant
            else:
                shift = shift + factor * constant
            source = value
        size = shape_of(node)[axis] if nodes else None
        if not isinstance(size, int):
            return None
        channels = torch.ones(size)
        return cls(source, tuple(nodes), factor * channels, shift * channels, tuple(by_channel))

    @classmethod
    def through(cls, module: fx.GraphModule, node: fx.Node, axis: int) -> "AffineChain | None":
        """Return the chain that a node is part of, up to its last operator."""
        if not _has_axis(node, axis):
            return None
        last = node
        while (reader := only_reader(last)) and _step(module, reader, axis) is not None:
            last = reader
        found = cls.of(module, last, axis)
        return found if found and node in found.nodes else None


def per_channel(module: fx.GraphModule, node: fx.Node, operand: Any, axis: int) -> Tensor | None:
    """Return a number [] or a stored tensor as one value or one per channel; None for all else.

    Args:
        module: of the node.
        node: that reads the operand.
        operand: the number or the tensor.
        axis: of the channels in the node's value.
    """
    if isinstance(operand, int | float):
        return torch.tensor(float(operand))
    values = constant_of(module, operand)
    if values is None or values.is_complex():
        return None
    if values.numel() == 1:
        return values.float().flatten()[0]
    shape = shape_of(node)
    sizes = [1] * (len(shape) - values.ndim) + list(values.shape)
    return values.float().flatten() if sizes[axis] == values.numel() == shape[axis] else None


def _has_axis(node: fx.Node, axis: int) -> bool:
    value = value_of(node)
    return isinstance(value, Tensor) and -value.ndim <= axis < value.ndim


def _step(module: fx.GraphModule, node: fx.Node, axis: int) -> tuple[fx.Node, Tensor] | None:
    """Return what a sum or product reads, and its constant; None where it is no such operator."""
    if node.target not in STEPS:
        return None
    value, operand = operands(node)
    if is_constant(value):
        value, operand = operand, value
    known = value_of(value) if isinstance(value, fx.Node) else None
    if not isinstance(known, Tensor) or known.shape != shape_of(node):
        return None
    if not known.dtype == value_of(node).dtype == torch.float32:
        return None
    constant = per_channel(module, node, operand, axis)
    return None if constant is None else (value, constant)
