"""The stage that makes up, in the biases, for what rounding does to the mean of each output."""

import math
from dataclasses import replace
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.encodings.placement import activation_bounds
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.operators.operator import Weighted, first_input
from edgedl.compress.graph.operators.table import groups_of, is_clip
from edgedl.compress.quantize.corrections.channel_statistics import channel_axis, observe_channels
from edgedl.compress.quantize.corrections.layerwise import Correction, Layer, correct_layers
from edgedl.compress.quantize.corrections.moments import InputMoments
from edgedl.compress.quantize.corrections.rounding import round_to_nearest
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs

SMALLEST_DEVIATION = 1e-12


class CorrectBias(Refinement, frozen=True, tag="correct_bias"):
    """Bias correction: weights are rounded to nearest, and only biases change.

    Each bias is corrected once. Correcting the outputs of all layers at the same time would count
    a shift again in every layer behind: "empirical" goes layer by layer, on what the corrected
    layers before compute; "analytic" corrects for a layer's own weights alone.

    Attributes:
        method: "empirical": the mean of each layer's output on calibration data becomes the float
            layer's. "analytic": mean inputs are those of a clipped normal distribution.
        samples: calibration samples; "empirical" holds their activations in memory.
        batch_size: samples per forward pass.
    """

    method: Literal["empirical", "analytic"] = "empirical"
    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Replace the biases of the quantized network; the float one stays.

        Raises:
            BadInputError: no stage before this one has quantized the network.
        """
        quantized = self.network(state)
        batches = calibration_inputs(state.subject.task, self.samples, self.batch_size)
        if self.method == "empirical":
            corrected = correct_layers(
                quantized.graph, quantized.encodings, batches, correct_mean_output
            )
        else:
            correct = own_shift(quantized, list(batches))
            corrected = correct_layers(quantized.graph, quantized.encodings, [], correct)
        return replace(state, quantized=corrected), {}


def correct_mean_output(layer: Layer) -> tuple[Tensor, Tensor | None]:
    """Return the weight as it is, and the bias that gives the float layer's mean output.

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction",
    2019, section 4.2 and appendix D (empirical bias correction).
    """
    if layer.bias is None:
        return layer.weight, None
    exact, found = InputMoments(layer, products=False).means()
    groups, inputs = exact.shape
    weight = layer.weight.reshape(groups, -1, inputs).double()
    step = layer.scales.reshape(groups, -1, 1).double()
    rounded = round_to_nearest(weight, step, layer.qmax)
    shift = weight @ exact[:, :, None] - rounded @ found[:, :, None]
    return layer.weight, (layer.bias.double() + shift.flatten()).float()


def own_shift(quantized: QuantizedNetwork, batches: list[tuple[Tensor, ...]]) -> Correction:
    """Return the correction of each layer for the shift that its own rounded weights make.

    The shift is (rounded W - W) E[x]. Behind an activation E[x] is that of a normal distribution
    with the mean and deviation of what the activation reads, clipped to its bounds; elsewhere it
    is the mean seen. Zeros of padding are not accounted for.

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction",
    2019, section 4.2.1, equations 16 to 19; there batch norm has the means and deviations.
    """
    simulation = Simulation(quantized.graph, quantized.encodings)
    axes: dict[fx.Node, int] = {}
    for node in simulation.weighted:
        axes[_distribution_of(node)[0]] = channel_axis(node)
    seen = observe_channels(quantized.graph, batches, axes)

    def correct(layer: Layer) -> tuple[Tensor, Tensor | None]:
        if layer.bias is None:
            return layer.weight, None
        source, lo, hi = _distribution_of(layer.node)
        mean = clipped_normal_mean(seen[source].mean, seen[source].deviation, lo, hi)
        groups = groups_of(layer.node)
        weight = layer.weight.reshape(groups, -1, len(mean) // groups, layer.weight[0, 0].numel())
        step = layer.scales.double().view(groups, -1, 1, 1)
        rounded = round_to_nearest(weight.double(), step, layer.qmax)
        error = (rounded - weight.double()).sum(3)
        shift = (error @ mean.view(groups, -1, 1)).flatten()
        return layer.weight, (layer.bias.double() - shift).float()

    return correct


def _distribution_of(node: fx.Node) -> tuple[fx.Node, float, float]:
    """Return the tensor whose distribution tells a layer's mean inputs, and where it is clipped."""
    source = Weighted.of(node).input
    if is_clip(source):
        return first_input(source), *activation_bounds(source)
    return source, -math.inf, math.inf


def clipped_normal_mean(mean: Tensor, deviation: Tensor, lo: float, hi: float) -> Tensor:
    """Return the mean of a normal distribution whose values are clipped to [lo, hi].

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction",
    2019, appendix C, equations 27 to 32.

    Args:
        mean: float64 [C].
        deviation: float64 [C].
        lo: lower bound, may be -inf.
        hi: upper bound, may be inf.

    >>> zero, one = torch.zeros(1).double(), torch.ones(1).double()
    >>> round(float(clipped_normal_mean(zero, one, 0.0, math.inf)), 4)
    0.3989
    """
    deviation = deviation.clamp(min=SMALLEST_DEVIATION)
    below, above = (lo - mean) / deviation, (hi - mean) / deviation
    inside = _cumulative(above) - _cumulative(below)
    result = mean * inside + deviation * (_density(below) - _density(above))
    # An infinite bound is never reached: it has no share, and infinity times zero no value.
    result = result + (lo * _cumulative(below) if math.isfinite(lo) else 0.0)
    return result + (hi * _cumulative(-above) if math.isfinite(hi) else 0.0)


def _density(x: Tensor) -> Tensor:
    return (-0.5 * x.square()).exp() / math.sqrt(2 * math.pi)


def _cumulative(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))
