"""What can be computed on the integers of a grid as they are, or in other operators that are there.

``emit`` writes these for the runtimes that would compute the operators in float.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from edgedl.compress.encodings.affine import Affine, grid_of
from edgedl.compress.encodings.encodings import Encodings, Range
from edgedl.compress.encodings.pair import Pair
from edgedl.compress.encodings.placement import activation_bounds, quantized_nodes
from edgedl.compress.graph.edit import insert_call, insert_constant, insert_shaped_call, take_place
from edgedl.compress.graph.operators.activation import HARD_SIGMOID, HARD_SWISH
from edgedl.compress.graph.operators.elementwise import ARITHMETIC, MULTIPLY
from edgedl.compress.graph.operators.operator import aten, first_input, operands
from edgedl.compress.graph.operators.table import is_clip, row_of
from edgedl.compress.targets.target import Target

_ops = torch.ops.quantized_decomposed
_QUANTIZE, _DEQUANTIZE = _ops.quantize_per_tensor.default, _ops.dequantize_per_tensor.default
# Steps whose ratio is a number up to float32's rounding.
_SAME = 1e-6


def open_for_integers(module: fx.GraphModule, encodings: Encodings, target: Target) -> Encodings:
    """Write operators without integer kernels as those that have them, in place.

    A hard sigmoid is an add, clipped to [0, 6], and a sixth of that. So is what a hard swish
    multiplies by; ONNX Runtime has no kernel for it, and TFLite one outside XNNPACK, which costs
    a MobileNetV3 more than half of its time. For ONNX Runtime numbers are stored as tensors.

    Returns:
        The table with what is new in the graph.
    """
    if not target.opens_hard_activations or encodings.precision != "int8":
        return encodings
    ranges = dict(encodings.activations)
    chosen = quantized_nodes(module.graph, encodings, target)
    for node in [n for n in module.graph.nodes if n in chosen]:
        if row_of(node) is HARD_SIGMOID:
            take_place(module, node, _gate(module, node, ranges))
        elif row_of(node) is HARD_SWISH:
            gate = _gate(module, node, ranges)
            product = insert_shaped_call(module, node, aten.mul.Tensor, first_input(node), gate)
            take_place(module, node, product)
    encodings = replace(encodings, activations=ranges)
    numbers = _store_numbers(module, encodings, target) if target.stores_numbers else {}
    return replace(encodings, activations=ranges | numbers)


def _gate(module: fx.GraphModule, node: fx.Node, ranges: dict[str, Range]) -> fx.Node:
    """Insert ``relu6(x + 3) / 6``, whose grid has 255 steps from 0 to 1."""

    def insert(name: str, end: float, function: Any, *arguments: Any) -> fx.Node:
        made = insert_shaped_call(module, node, function, *arguments)
        made.name = f"{node.name}_{name}"
        ranges[made.name] = Range(0.0, end)
        return made

    shifted = insert("shifted", 6.0, aten.add.Tensor, first_input(node), 3.0)
    clipped = insert("clipped", 6.0, aten.relu6.default, shifted)
    return insert("gate", 1.0, aten.mul.Tensor, clipped, 1 / 6)


def _store_numbers(
    module: fx.GraphModule, encodings: Encodings, target: Target
) -> dict[str, Range]:
    """Store the numbers of integer arithmetic; the end of a grid of its own is exactly itself."""
    found = {}
    for node in quantized_nodes(module.graph, encodings, target):
        if row_of(node) not in ARITHMETIC or _only_scales(node, encodings, target):
            continue
        for index, number in enumerate(operands(node)):
            if isinstance(number, (int, float)):
                path = f"{node.name}_number_{index}"
                constant = insert_constant(module, node, path, torch.tensor([float(number)]))
                node.update_arg(index, constant)
                found[constant.name] = Range(min(number, 0.0), max(number, 0.0))
    return found


def _only_scales(node: fx.Node, encodings: Encodings, target: Target) -> bool:
    """Say whether a node multiplies a grid by a number, and has the grid that comes of it."""
    source = first_input(node)
    if not isinstance(source, fx.Node) or source.name not in encodings.activations:
        return False
    grids = (grid_of(encodings, name, target) for name in (source.name, node.name))
    return _scales(node, *grids)


def _scales(node: fx.Node, before: Affine, after: Affine) -> bool:
    factor = operands(node)[1] if row_of(node) is MULTIPLY else None
    if not isinstance(factor, (int, float)) or factor <= 0:
        return False
    exact = math.isclose(after.scale, factor * before.scale, rel_tol=_SAME)
    return exact and after.zero_point == before.zero_point


def compute_on_integers(module: fx.GraphModule) -> None:
    """Clip and scale integers as they are in an emitted graph, in place.

    A clip between two pairs of one grid clips the integers. What multiplies a grid by a number
    changes its step alone.
    """
    for quantize in module.graph.find_nodes(op="call_function", target=_QUANTIZE):
        written = Pair.of(quantize)
        node, source = written.input, first_input(written.input)
        if not isinstance(source, fx.Node) or source.target is not _DEQUANTIZE:
            continue
        read = Pair.of(source)
        if is_clip(node) and read.affine == written.affine:
            clipped = _clip(module, quantize, node, read.input, written.affine)
            quantize.replace_all_uses_with(clipped)
        elif _scales(node, read.affine, written.affine):
            quantize.replace_all_uses_with(read.input)


def _clip(
    module: fx.GraphModule, before: fx.Node, activation: fx.Node, integers: Any, grid: Affine
) -> fx.Node:
    """Insert a clip of integers to the bounds of an activation, if they can be beyond."""
    ends = [
        min(max(_nearest(bound, grid), grid.qmin), grid.qmax)
        for bound in activation_bounds(activation)
    ]
    if ends == [grid.qmin, grid.qmax]:
        return integers  # type: ignore[no-any-return]
    return insert_call(module.graph, before, aten.clamp.default, integers, *ends)


def _nearest(bound: float, grid: Affine) -> float:
    return bound if math.isinf(bound) else round(bound / grid.scale) + grid.zero_point
