"""How far a file on its runtime may be from the torch graph it was made from."""

import itertools

import numpy as np
from torch import fx

from edgedl.compress.encodings.affine import grid_of
from edgedl.compress.encodings.placement import gives_floats, quantized_nodes
from edgedl.compress.errors import ExportError
from edgedl.compress.export.exporter import FileSource
from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.graph.operators.table import has_jumps
from edgedl.compress.graph.run import run_graph, without_onednn
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import Target
from edgedl.runtime.backend import Array
from edgedl.runtime.precision import Precision
from edgedl.runtime.task.batch_size import fitting_size

# Steps of an integer output, by the type of activations. Those of 16 bits are 256 times finer, and
# kernels look functions up in tables of 512 entries.
TOLERANCE_LSB = {"int8": 3.0, "int16": 64.0}
# A difference of just so many steps is a float32, which may be a little more.
FLOAT_SLACK = 1e-3
# Share of the largest output that a smaller one is taken for, which may be nothing at all.
LEAST = 1e-3
# In deep networks one flipped rounding flips others behind it. How far that carries is measured: by
# the difference between two orders of summation in torch, times this.
ROUNDING_NOISE_FACTOR = 2.0
ROUNDING_NOISE_BATCHES = 4
ROUNDING_NOISE_SAMPLES = 8
# Where a network has thresholds (spiking neurons), the last digit of a float32 decides whether
# something is passed on at all. So large a share of the largest output is allowed then.
JUMP = 0.16
# Ranges found while a network runs err by a share of what is inside, not of what comes out.
LEAST_DYNAMIC = 1.0


def allowed_differences(
    source: FileSource, graph: fx.GraphModule, target: Target, precision: Precision
) -> tuple[float, ...]:
    """Return how far each of a runtime's outputs may be from the torch graph's.

    Raises:
        ExportError: the graph's outputs are not finite on the example inputs, so that there is
            nothing to compare with.
    """
    state = source.state
    expected = run_graph(graph, tuple(x.numpy() for x in source.inputs))
    if not all(np.isfinite(y).all() for y in expected):
        name = target.artifact_name(precision)
        raise ExportError(f"{name} computes values that are not finite")
    noise = _noise_of(source, graph if precision.has_steps else state.graph)
    jumps = has_jumps(state.graph)
    share = max(precision.tolerance, JUMP) if jumps else precision.tolerance
    of_floats = _of_floats(expected, noise, precision, share)
    if not precision.has_steps:
        return of_floats
    allowed = TOLERANCE_LSB[precision.activations]
    return tuple(
        max(
            of_float if step is None or jumps else (allowed + FLOAT_SLACK) * step,
            ROUNDING_NOISE_FACTOR * n,
        )
        for step, of_float, n in zip(steps_by_output(state, target), of_floats, noise, strict=True)
    )


def _of_floats(
    expected: tuple[Array, ...], noise: tuple[float, ...], precision: Precision, share: float
) -> tuple[float, ...]:
    # Small outputs can be differences of large values. What float32's rounding makes of them is
    # measured; it is so many times more with fewer bits of mantissa.
    coarser = ROUNDING_NOISE_FACTOR * precision.rounding
    largest = [float(np.abs(y).max(initial=0.0)) for y in expected]
    least = LEAST_DYNAMIC if precision.source == "running" else LEAST * max(1.0, *largest)
    return tuple(
        max(share * max(size, least), coarser * n) for size, n in zip(largest, noise, strict=True)
    )


def output_steps(state: ModelState, target: Target) -> list[float]:
    """Return the quantization steps of the quantized outputs of a model state."""
    return [step for step in steps_by_output(state, target) if step is not None]


def steps_by_output(state: ModelState, target: Target) -> list[float | None]:
    """Return the quantization step of every output of a model state, None for floats."""
    if state.quantized is None:
        return [None] * len(output_nodes(state.graph))
    graph, encodings = state.quantized.graph, state.quantized.encodings
    chosen = quantized_nodes(graph.graph, encodings, target)
    return [
        grid_of(encodings, node.name, target).scale
        if node in chosen and not gives_floats(node, encodings, target)
        else None
        for node in output_nodes(graph)
    ]


def _noise_of(source: FileSource, graph: fx.GraphModule) -> tuple[float, ...]:
    """Return the rounding noise of a graph on calibration samples, measured once."""

    def measure() -> tuple[fx.GraphModule, tuple[float, ...]]:
        task = source.state.subject.task
        # Large samples, of which a batch has fewer, have as many roundings each.
        size = min(ROUNDING_NOISE_SAMPLES, fitting_size(task, "calibration"))
        batches = itertools.islice(task.batches("calibration", size), ROUNDING_NOISE_BATCHES)
        found = [rounding_noise(graph, batch.inputs) for batch in batches]
        # The graph is kept, so that no other one gets its identity.
        return graph, tuple(max(noise) for noise in zip(*found, strict=True))

    return source.once(f"rounding noise of {id(graph)}", measure)[1]


def rounding_noise(graph: fx.GraphModule, inputs: tuple[Array, ...]) -> tuple[float, ...]:
    """Return the largest difference in each output between two orders of summation in torch.

    Both are right to float32's last digits; what they disagree on are roundings of a quantized
    graph that fall the other way, and what follows from them.
    """
    usual = run_graph(graph, inputs)
    with without_onednn():
        other = run_graph(graph, inputs)
    return tuple(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(usual, other, strict=True))
