"""Fill the encodings table by running calibration samples through the float graph."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgedl.compress.encodings.affine import SMALLEST_WIDTH, grid_of, range_of
from edgedl.compress.encodings.clipping import WeightObserver, least_error_amax
from edgedl.compress.encodings.encodings import (
    WEIGHT_BITS,
    WEIGHT_QMAX,
    Encodings,
    QuantizedPrecision,
    Range,
)
from edgedl.compress.encodings.joins import damaging_joins, groups_on_one_grid
from edgedl.compress.encodings.magnitudes import before_expansions
from edgedl.compress.encodings.observers import PERCENTILE, Histogram, Observer
from edgedl.compress.encodings.placement import fused_activation
from edgedl.compress.graph.edit import get_tensor, is_constant
from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.graph.operators.activation import FIXED_END_INT16, SOFTMAX
from edgedl.compress.graph.operators.elementwise import MASKED_BELOW, MULTIPLY
from edgedl.compress.graph.operators.operator import (
    Weighted,
    operands,
)
from edgedl.compress.graph.operators.table import (
    has_stored_weight,
    is_clip,
    moves_values,
    row_of,
)
from edgedl.compress.targets.target import REFERENCE
from edgedl.runtime.errors import BadInputError

# A channel whose weights are (almost) zero still needs a step; relative to the largest channel.
WEIGHT_FLOOR = 1e-4
SMALLEST_WEIGHT = 1e-8
# |bias| / (input scale * weight scale) must stay below this, well inside int32.
BIAS_LIMIT = 2**30

Calibration = Iterable[tuple[Tensor, ...]]


def calibrate(
    graph: fx.GraphModule,
    batches: Calibration,
    observer: Observer,
    percentile: float = PERCENTILE,
    weight_observer: WeightObserver = "minmax",
    weight_bits: int = WEIGHT_BITS,
    precision: QuantizedPrecision = "int8",
    float_nodes: frozenset[str] = frozenset(),
) -> Encodings:
    """Return the table of a canonical float graph.

    A concat whose one grid would destroy some of what it joins is kept in float, too, and so is
    what is computed for a root, a logarithm or a denominator.

    Args:
        graph: from ``trace``.
        batches: calibration inputs, one tuple of float32 tensors per batch.
        observer: how a range is chosen from what was seen. Network inputs always keep the
            whole range they were seen in: their grid is the sensor's.
        percentile: setting of that observer.
        weight_observer: how the range of a weight's channel is chosen.
        weight_bits: of every weight's integers.
        precision: of the files that are made of the table.
        float_nodes: names of the operators that compute in float all the same.

    Raises:
        BadInputError: there are no samples, or a tensor is not finite on one of them.
    """
    table = Encodings({}, {}, weight_bits=weight_bits, precision=precision)
    bits = table.activation_bits
    histograms = observe(graph, batches)
    inputs = {n.name for n in graph.graph.nodes if n.op == "placeholder"}
    activations = {
        name: histogram.range("minmax" if name in inputs else observer, percentile, bits)
        for name, histogram in histograms.items()
    }
    for node in graph.graph.nodes:
        fixed = fixed_range(node, bits)
        if fixed is not None and node.name in activations:
            activations[node.name] = fixed
    for constant in _constant_operands(graph.graph):
        values = get_tensor(graph, str(constant.target))
        # A mask of infinities has no grid, and neither has what it is added to.
        if values.isfinite().all():
            activations[constant.name] = _constant_range(constant, values)
    widen_zeros(graph.graph, activations)
    if precision != "fp8":
        float_nodes |= before_expansions(graph.graph)
        float_nodes |= damaging_joins(graph.graph, histograms, activations, float_nodes, bits)
    share_encodings(graph.graph, activations, float_nodes)
    table = replace(table, activations=activations, float_nodes=float_nodes)
    return replace(table, weights=weight_ranges(graph, table, weight_observer))


def fixed_range(node: fx.Node, bits: int) -> Range | None:
    """Return the range of an operator whose integer kernels have one grid for their output."""
    fixed = row_of(node).fixed_range
    if fixed is None:
        return None
    lo, hi = fixed
    if bits == 16:
        return Range(-FIXED_END_INT16 if lo < 0 else 0.0, FIXED_END_INT16)
    return Range(lo, hi)


def widen_zeros(graph: fx.Graph, activations: dict[str, Range]) -> None:
    """Give what was never anything but zero the size of what it is computed from, in place.

    A ReLU that no calibration sample wakes may fire on another one; and a runtime's kernels take no
    grid that is so much finer than that of what they read.
    """
    for node in graph.nodes:
        found = activations.get(node.name)
        if found is None or max(-found.lo, found.hi) >= SMALLEST_WIDTH:
            continue
        read = [activations[n.name] for n in node.all_input_nodes if n.name in activations]
        if not read:
            continue
        largest = max(max(-r.lo, r.hi) for r in read)
        lowest = 0.0 if is_clip(node) else -largest
        activations[node.name] = Range(lowest, largest)


def share_encodings(
    graph: fx.Graph, activations: dict[str, Range], float_nodes: Collection[str] = ()
) -> None:
    """Give tensors that must be on one grid the same range, in place.

    A concat that is kept in float, by its name in ``float_nodes``, leaves all theirs.

    A concat and everything it joins share the union of their ranges: no runtime converts between
    them then, and the joined values are on that grid anyhow. What only moves has the range of what
    it moves. An operator before its fused activation has the activation's range. What a positive
    number multiplies keeps its integers, of another step. What shares a grid with the rows of a
    table has no zero point, as TFLite wants of the table.
    """
    groups = groups_on_one_grid(graph, float_nodes)
    for members in groups:
        ranges = [activations[n.name] for n in members if n.name in activations]
        if ranges:
            shared = Range(min(r.lo for r in ranges), max(r.hi for r in ranges))
            if any(row_of(node).reads_table for node in members):
                shared = _without_zero_point(shared)
            activations.update({n.name: shared for n in members})
    for node in graph.nodes:
        activation = fused_activation(node)
        if activation is not None and activation.name in activations:
            activations[node.name] = activations[activation.name]
    _scale_encodings(graph, activations, groups)


def _scale_encodings(
    graph: fx.Graph, activations: dict[str, Range], on_one_grid: list[list[fx.Node]]
) -> None:
    """Give what a positive number multiplies the range whose integers are the same."""
    groups = {node: members for members in on_one_grid for node in members}
    for node in graph.nodes:
        if row_of(node) is not MULTIPLY or not isinstance(operands(node)[1], (int, float)):
            continue
        source, factor = operands(node)
        read = activations.get(source.name)
        # Those that only move it have its range; a concat has one of its own.
        alone = all(member is node or moves_values(member) for member in groups[node])
        if read is not None and factor > 0 and alone:
            scaled = Range(read.lo * factor, read.hi * factor)
            activations.update({member.name: scaled for member in groups[node]})


def _constant_operands(graph: fx.Graph) -> list[fx.Node]:
    """Return the constants that integer operators read, weights and biases apart."""
    users = [n for n in graph.nodes if row_of(n).reads_constants]
    return [c for n in users for c in n.all_input_nodes if is_constant(c)]


def _constant_range(constant: fx.Node, values: Tensor) -> Range:
    """Return what the integers of a constant cover; TFLite wants tables without a zero point."""
    lo, hi = float(values.min()), float(values.max())
    found = Range(lo, hi)
    reads_table = any(row_of(user).reads_table for user in constant.users)
    return _without_zero_point(found) if reads_table else found


def _without_zero_point(wanted: Range) -> Range:
    """Return a range around it whose grid of 8 bits has the zero point 0 of signed integers."""
    scale = np.float32(max(-wanted.lo, wanted.hi, SMALLEST_WIDTH) / 127)
    return range_of(float(scale), 128)


def observe(graph: fx.GraphModule, batches: Calibration) -> dict[str, Histogram]:
    """Return one histogram per float tensor that has an encoding of its own.

    Attention scores behind a mask have none: the mask's huge values would leave no integers for
    the others. They stay in float up to the softmax.
    """
    histograms: dict[str, Histogram] = {}
    masked: set[str] = set()

    def add(node: fx.Node, value: Tensor) -> None:
        if _is_masked(node, value):
            masked.add(node.name)
            return
        try:
            histograms.setdefault(node.name, Histogram()).add(value)
        except ValueError as error:
            raise BadInputError(f"calibration met {error} in tensor '{node.name}'") from error

    tap = _Tap(graph, add)
    with torch.no_grad():
        for batch in batches:
            tap.run(*in_fast_layout(graph, batch))
    if not histograms:
        raise BadInputError("there are no calibration samples")
    return {name: histogram for name, histogram in histograms.items() if name not in masked}


def _is_masked(node: fx.Node, value: Tensor) -> bool:
    if not node.users or any(row_of(user) is not SOFTMAX for user in node.users):
        return False
    masks = any(row_of(n).masks for n in (node, *node.all_input_nodes))
    return masks or float(value.min()) < MASKED_BELOW


def weight_ranges(
    graph: fx.GraphModule, table: Encodings, observer: WeightObserver = "minmax"
) -> dict[str, Tensor]:
    """Return the largest magnitude to cover per output channel of every quantizable weight.

    A channel's range is widened where its bias would not fit the int32 accumulator, whose step
    is the input's times the weight's.
    """
    activations, qmax = table.activations, table.weight_qmax
    ranges: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        if not has_stored_weight(node):
            continue
        layer = Weighted.of(node)
        path, axis = layer.weight_path, row_of(node).weight_axis
        weight = get_tensor(graph, path).movedim(axis, 0).flatten(1)
        amax = weight.abs().amax(1) if observer == "minmax" else least_error_amax(weight, qmax)
        amax = amax.clamp(min=max(float(amax.max()) * WEIGHT_FLOOR, SMALLEST_WEIGHT))
        if layer.bias_path is not None and layer.input.name in activations:
            bias = get_tensor(graph, layer.bias_path)
            input_scale = grid_of(table, layer.input.name, REFERENCE).scale
            amax = torch.maximum(amax, smallest_amax(bias, input_scale, qmax))
        ranges[path] = torch.maximum(amax, ranges.get(path, amax))
    return ranges


def smallest_amax(bias: Tensor, input_scale: float | Tensor, qmax: int = WEIGHT_QMAX) -> Tensor:
    """Return the least weight range of each channel whose bias still fits int32: float32 [C_out].

    Args:
        bias: float32 [C_out].
        input_scale: step of the layer's input.
        qmax: largest integer of the weight.
    """
    return bias.abs() * qmax / (input_scale * BIAS_LIMIT)


class _Tap(fx.Interpreter):
    """Runs a graph and shows every float tensor that needs an encoding of its own."""

    def __init__(self, graph: fx.GraphModule, show: Callable[[fx.Node, Tensor], None]) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self._show = show

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        computed = n.op in ("call_function", "placeholder") and not moves_values(n)
        if computed and isinstance(value, Tensor) and value.is_floating_point():
            self._show(n, value)
        return value
