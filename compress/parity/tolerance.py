"""How far a file on its runtime may be from the torch graph it was made from."""

import numpy as np
from torch import fx

from edgedl.compress.evaluate import run_graph, without_onednn
from edgedl.compress.export.errors import ExportError, first_line
from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.quantize.affine import grid_of
from edgedl.compress.quantize.placement import gives_floats, quantized_nodes
from edgedl.compress.stage import INTEGERS, ModelState
from edgedl.compress.target import Target
from edgedl.runtime.backend import Array
from edgedl.runtime.manifest import Precision

# Steps of an int8 output, or a share of the largest float output.
INT8_TOLERANCE_LSB = 3.0
# Those of 16 bits are 256 times finer, and kernels look functions up in tables of 512 entries.
INT16_TOLERANCE_LSB = 64.0
# A difference of just so many steps is a float32, which may be a little more.
FLOAT_SLACK = 1e-3
# In deep networks one flipped rounding flips others behind it. How far that carries is measured: by
# the difference between two orders of summation in torch, times this.
ROUNDING_NOISE_FACTOR = 2.0
ROUNDING_NOISE_SAMPLES = 32
FLOAT_TOLERANCE: dict[Precision, float] = {
    "float32": 1e-3,
    "float16": 2e-2,
    "bfloat16": 1.6e-1,
    "fp8": 1e-1,
    "dynamic_int8": 1e-1,
    "int8_weights": 1e-3,
    "int4_weights": 1e-3,
}


def allowed_difference(
    state: ModelState, graph: fx.GraphModule, target: Target, precision: Precision
) -> float:
    """Return how far a runtime's outputs may be from the torch graph's.

    Raises:
        ExportError: the graph's outputs are not finite on the example inputs, or torch cannot
            compute them, so that there is nothing to compare with.
    """
    try:
        expected = run_graph(graph, tuple(x.numpy() for x in state.subject.example_inputs()))
    except NotImplementedError as error:
        raise ExportError(
            f"torch cannot compute the {precision} network here: {first_line(error)}"
        ) from error
    if not all(np.isfinite(y).all() for y in expected):
        raise ExportError(f"{target}-{precision} computes values that are not finite")
    largest = max(float(np.abs(y).max()) for y in expected)
    of_floats = FLOAT_TOLERANCE.get(precision, FLOAT_TOLERANCE["float16"]) * max(1.0, largest)
    if precision not in INTEGERS:
        return of_floats
    steps = output_steps(state, target)
    allowed = INT8_TOLERANCE_LSB if precision == "int8" else INT16_TOLERANCE_LSB
    inputs = next(iter(state.subject.task.batches("calibration", ROUNDING_NOISE_SAMPLES))).inputs
    noise = ROUNDING_NOISE_FACTOR * rounding_noise(graph, inputs)
    return max((allowed + FLOAT_SLACK) * max(steps) if steps else of_floats, noise)


def output_steps(state: ModelState, target: Target) -> list[float]:
    """Return the quantization steps of the quantized outputs of a model state."""
    return [step for step in steps_by_output(state, target) if step is not None]


def steps_by_output(state: ModelState, target: Target) -> list[float | None]:
    """Return the quantization step of every output of a model state, None for floats."""
    if state.quantized is None:
        return [None] * len(output_nodes(state.graph))
    graph, encodings = state.quantized.graph, state.quantized.encodings
    chosen = quantized_nodes(graph.graph, encodings)
    return [
        grid_of(encodings, node.name, target).scale
        if node in chosen and not gives_floats(node, encodings, target)
        else None
        for node in output_nodes(graph)
    ]


def rounding_noise(graph: fx.GraphModule, inputs: tuple[Array, ...]) -> float:
    """Return the largest difference in any output between two orders of summation in torch.

    Both are right to float32's last digits; what they disagree on are roundings of a quantized
    graph that fall the other way, and what follows from them.
    """
    usual = run_graph(graph, inputs)
    with without_onednn():
        other = run_graph(graph, inputs)
    return max(float(np.abs(a - b).max()) for a, b in zip(usual, other, strict=True))
