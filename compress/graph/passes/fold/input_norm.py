"""Scales and shifts of an input's channels: in the layer behind, in float, or outside."""

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
from edgedl.compress.graph.operators.linear import LINEAR
from edgedl.compress.graph.operators.operator import Weighted, aten, set_argument
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.fold.batch_norm import FoldBatchNorm
from edgedl.compress.graph.passes.fold.chain import STEPS, AffineChain
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


def is_float_norm(node: fx.Node, integers: bool) -> bool:
    """Say whether a node is part of a normalisation of an input that is computed in float.

    Args:
        node: of a canonical graph.
        integers: whether the target computes those in integers that fit the grid of the input.
    """
    if is_input_norm(node):
        return not integers
    chain = _input_chain(node)
    return chain is not None and not (integers and _fits(chain.factor, chain.shift))


class FoldInputNorm(Pass):
    """Fold a normalisation of the input into the linear layer or convolution behind it.

    Only where that pads nothing: zeros of the padding stand for the normalised zero. And only where
    the input as it is can lie on one grid of 8 bits as well as the normalised one.

    Before: ``conv2d(conv2d(x, k, c, groups=C), w, b)``. After: ``conv2d(x, w * k, b + w @ c)``.
    """

    requires = (FoldBatchNorm, NormalisationAsDepthwise)
    operators = frozenset(overload for row in (*CONVOLUTIONS, LINEAR) for overload in row.overloads)

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Fold the normalisation that one layer reads."""
        layer = Weighted.of(node)
        if not layer.is_stored or only_reader(layer.input) is not node:
            return None
        is_linear = row_of(node) is LINEAR
        if not is_linear and _pads(Convolution.of(node)):
            return None
        found = _norm_of(module, layer.input, axis=-1 if is_linear else 1)
        if found is None or not _fits(found.factor, found.shift):
            return None
        groups = 1 if is_linear else Convolution.of(node).groups
        weight = get_tensor(module, layer.weight_path)
        per_output = _by_output(found.factor, groups, weight)
        added = (weight * _by_output(found.shift, groups, weight)).flatten(1).sum(1)
        bias_path = layer.bias_path
        bias = added if bias_path is None else added + get_tensor(module, bias_path)
        path = f"{node.name}_normalising"
        set_argument(node, "weight", insert_constant(module, node, path, weight * per_output))
        set_argument(node, "bias", insert_constant(module, node, f"{path}_bias", bias))
        set_argument(node, "input", found.source)
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
        norm = _norm_of(without, node, axis=1)
        if norm is None:
            continue
        source, factor, shift = norm.source, norm.factor.double(), norm.shift.double()
        if len(source.users) > 1 or bool((factor == 0).any()):
            continue
        mean, std = -shift / factor, 1 / factor
        found[source.name] = InputNorm(node.name, tuple(mean.tolist()), tuple(std.tolist()))
        node.replace_all_uses_with(source)
    return (finish(without), found) if found else (module, {})


@dataclass(frozen=True)
class _Norm:
    """``factor * source + shift``: an input, and a number for each channel."""

    source: fx.Node
    factor: Tensor
    shift: Tensor


def _norm_of(module: fx.GraphModule, node: fx.Node, axis: int) -> _Norm | None:
    """Return the normalisation of an input's channels whose last operator is a node.

    Args:
        module: of the node.
        node: any; for all else the result is None.
        axis: of the channels.
    """
    if is_input_norm(node):
        return _Norm(Convolution.of(node).input, *_factor_and_shift(module, node))
    chain = AffineChain.through(module, node, axis) if node.target in STEPS else None
    if chain is None or chain.nodes[0] is not node or chain.source.op != "placeholder":
        return None
    return _Norm(chain.source, chain.factor, chain.shift)


def _input_chain(node: fx.Node) -> AffineChain | None:
    """Return the sums and products of an input that a node is part of, by features or channels."""
    module = node.graph.owning_module
    if module is None or node.target not in STEPS:
        return None
    for axis in (-1, 1):
        chain = AffineChain.through(module, node, axis)
        if chain is not None and chain.source.op == "placeholder":
            return chain
    return None


def _fits(factor: Tensor, shift: Tensor) -> bool:
    """Say whether an input lies as well on one grid of 8 bits as what is made of it."""
    sizes = factor.abs()
    return bool(shift.abs().max() <= MOST_SHIFT and sizes.max() <= MOST_UNEVEN * sizes.min())


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
