"""Scales and shifts of an input's channels: in float, or outside of the files."""

from dataclasses import dataclass

import torch
from torch import fx

from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    insert_constant,
    insert_shaped_call,
)
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS, Convolution
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.fold.chain import STEPS, AffineChain
from edgedl.compress.graph.passes.fold.channel_norm import (
    ChannelNorm,
    factor_and_shift,
    fits_one_grid,
    is_depthwise_norm,
)
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import record_value, shape_of, value_of


def is_input_norm(node: fx.Node) -> bool:
    """Say whether a node scales and shifts the channels of an input as a layer of one place."""
    return is_depthwise_norm(node) and Convolution.of(node).input.op == "placeholder"


def is_float_norm(node: fx.Node, integers: bool) -> bool:
    """Say whether a node is part of a normalisation of an input that is computed in float.

    Args:
        node: of a canonical graph.
        integers: whether the target computes those in integers that fit the grid of the input.
    """
    if is_input_norm(node):
        return not integers
    chain = _input_chain(node)
    return chain is not None and not (integers and fits_one_grid(chain.factor, chain.shift))


class InputNormAsBatchNorm(Pass):
    """Write a normalisation of the input as a batch norm, which is one float operator in ONNX.

    One that is quantized stays.

    Before: ``conv2d(x, k, c, groups=C)``. After: ``batch_norm(x, k, c, 0, 1)``.
    """

    operators = frozenset(overload for row in CONVOLUTIONS for overload in row.overloads)

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Rewrite one convolution."""
        if not is_input_norm(node):
            return None
        factor, shift = factor_and_shift(module, node)
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
    normalisation, and so does a series that is treated alike everywhere: its axis 1 may be time.
    The graph itself comes back if nothing was taken out.
    """
    found: dict[str, InputNorm] = {}
    without = copy_graph(module)
    for node in list(without.graph.nodes):
        norm = ChannelNorm.of(without, node, axis=1)
        if norm is None or not norm.is_of_input:
            continue
        source, factor, shift = norm.source, norm.factor.double(), norm.shift.double()
        alike = len(factor.unique()) == len(shift.unique()) == 1
        if len(source.users) > 1 or bool((factor == 0).any()):
            continue
        if alike and len(shape_of(source)) == 3:
            continue
        mean, std = -shift / factor, 1 / factor
        found[source.name] = InputNorm(node.name, tuple(mean.tolist()), tuple(std.tolist()))
        node.replace_all_uses_with(source)
    return (finish(without), found) if found else (module, {})


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
