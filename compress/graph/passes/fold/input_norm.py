"""Scales and shifts of an input's channels: in the layer behind, or as a batch norm."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_constant,
    insert_shaped_call,
    only_reader,
)
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS, Convolution
from edgedl.compress.graph.operators.operator import Weighted, aten, set_argument
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.fold.normalisation import NormalisationAsDepthwise
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import record_value, value_of

# Beyond these the input as it is lies on a much wider grid than the normalised one, which has mean
# 0 and deviation 1: how many deviations 0 is away, and how much channels differ in deviation.
MOST_SHIFT = 4.0
MOST_UNEVEN = 2.0


def is_input_norm(node: fx.Node) -> bool:
    """Say whether a node scales and shifts the channels of an input: a depthwise 1x1 convolution.

    ``FoldBatchNorm`` and ``NormalisationAsDepthwise`` write them so.
    """
    if row_of(node) not in CONVOLUTIONS:
        return False
    layer = Convolution.of(node)
    weight = layer.weight.meta.get("val")
    return (
        layer.input.op == "placeholder"
        and Weighted.of(node).is_stored
        and isinstance(weight, Tensor)
        and tuple(weight.shape) == (layer.groups, 1, *[1] * (weight.ndim - 2))
        and layer.groups == value_of(layer.input).shape[1]
        and set(layer.stride) == {1}
        and not _pads(layer)
    )


class FoldInputNorm(Pass):
    """Fold a normalisation of the input into the convolution behind it.

    Only where it pads nothing: zeros of the padding stand for the normalised zero. And only where
    the input as it is can lie on one grid of 8 bits as well as the normalised one.

    Before: ``conv2d(conv2d(x, k, c, groups=C), w, b)``. After: ``conv2d(x, w * k, b + w @ c)``.
    """

    requires = (FoldBatchNorm, NormalisationAsDepthwise)
    operators = frozenset({overload for row in CONVOLUTIONS for overload in row.overloads})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold the normalisation that one convolution reads."""
        layer = Convolution.of(node)
        norm = layer.input
        if _pads(layer) or not Weighted.of(node).is_stored or not is_input_norm(norm):
            return None
        if only_reader(norm) is not node:
            return None
        factor, shift = _factor_and_shift(module, norm)
        sizes = factor.abs()
        if shift.abs().max() > MOST_SHIFT or sizes.max() > MOST_UNEVEN * sizes.min():
            return None
        weight = get_tensor(module, Weighted.of(node).weight_path)
        per_output = _by_output(factor, layer.groups, weight)
        added = (weight * _by_output(shift, layer.groups, weight)).flatten(1).sum(1)
        bias_path = Weighted.of(node).bias_path
        bias = added if bias_path is None else added + get_tensor(module, bias_path)
        path = f"{node.name}_normalising"
        set_argument(node, "weight", insert_constant(module, node, path, weight * per_output))
        set_argument(node, "bias", insert_constant(module, node, f"{path}_bias", bias))
        set_argument(node, "input", Convolution.of(norm).input)
        return node


class InputNormAsBatchNorm(Pass):
    """Write a normalisation of the input as a batch norm, which is one float operator in ONNX.

    One that is quantized stays.

    Before: ``conv2d(x, k, c, groups=C)``. After: ``batch_norm(x, k, c, 0, 1)``.
    """

    operators = FoldInputNorm.operators

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Rewrite one convolution."""
        if not is_input_norm(node):
            return None
        factor, shift = _factor_and_shift(module, node)
        path = f"{node.name}_norm"
        stored = [
            insert_constant(module, node, f"{path}_{name}", values)
            for name, values in (
                ("factor", factor),
                ("shift", shift),
                ("mean", torch.zeros_like(factor)),
                ("variance", torch.ones_like(factor)),
            )
        ]
        arguments = (*stored, False, 0.0, 0.0, False)
        norm = insert_shaped_call(
            module, node, aten.batch_norm.default, Convolution.of(node).input, *arguments
        )
        record_value(norm, value_of(node))
        return norm


def write_input_norms(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy with batch norms for float normalisations of inputs.

    The graph itself comes back if it has none.
    """
    if not any(map(is_input_norm, module.graph.nodes)):
        return module
    written = copy_graph(module)
    InputNormAsBatchNorm()(written)
    return finish(written)


@dataclass(frozen=True)
class InputNorm:
    """What the channels of an input are normalised with: ``(x - mean) / std``.

    Attributes:
        node: name of the operator.
        mean, std: a number for each channel.
    """

    node: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def take_out_input_norms(module: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, InputNorm]]:
    """Return a copy whose inputs come normalised, and what they are normalised with, by input.

    An input that something else reads, too, or a channel of which is multiplied by 0, keeps its
    normalisation. The graph itself comes back if nothing was taken out.
    """
    found: dict[str, InputNorm] = {}
    without = copy_graph(module)
    for node in list(without.graph.nodes):
        if not is_input_norm(node):
            continue
        source = Convolution.of(node).input
        factor, shift = (values.double() for values in _factor_and_shift(without, node))
        if len(source.users) > 1 or bool((factor == 0).any()):
            continue
        mean, std = -shift / factor, 1 / factor
        found[source.name] = InputNorm(node.name, tuple(mean.tolist()), tuple(std.tolist()))
        node.replace_all_uses_with(source)
    return (finish(without), found) if found else (module, {})


def _pads(layer: Convolution) -> bool:
    if isinstance(layer.padding, str):
        # "same" pads nothing where the kernel is one place.
        places = math.prod(value_of(layer.weight).shape[2:])
        return layer.padding == "same" and places > 1
    return any(layer.padding)


def _factor_and_shift(module: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    layer = Weighted.of(norm)
    factor = get_tensor(module, layer.weight_path).flatten()
    if layer.bias_path is None:
        return factor, torch.zeros_like(factor)
    return factor, get_tensor(module, layer.bias_path)


def _by_output(values: Tensor, groups: int, weight: Tensor) -> Tensor:
    """Return a value per input channel in a shape that multiplies a weight [out, in / groups, ...].

    The inputs of an output are those of its group.
    """
    by_group = values.view(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
    return by_group.view(*by_group.shape, *[1] * (weight.ndim - 2))
