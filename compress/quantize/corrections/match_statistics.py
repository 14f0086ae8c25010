"""The stage that gives each layer's quantized output the float network's mean and deviation."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.encodings.calibrate import smallest_amax
from edgedl.compress.encodings.encodings import per_channel, weight_scales
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation, last_users
from edgedl.compress.graph.operators.operator import Weighted
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.quantize.corrections.channel_statistics import (
    ChannelStatistics,
    channel_axis,
    observe_channels,
)
from edgedl.compress.quantize.corrections.layerwise import replace_parameters
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs

# A channel is scaled by no more than this, or its inverse: one that hardly varies has no scale.
MOST = 1.5


class MatchStatistics(Refinement, frozen=True, tag="match_statistics"):
    """Batch-norm re-estimation for networks whose norms are folded into their layers.

    A batch norm whose mean and variance are measured anew, on the quantized network, brings each
    channel of its output back to the mean and deviation it had. Folded, that is a factor for the
    channel's weights, and another bias: the integers of the weights stay, their step changes.
    Layer by layer, on what the corrected layers before compute. Layers without a bias stay, and
    those that share their weight.

    Source: Sun et al., "Hybrid 8-bit floating point (HFP8) training and inference for deep neural
    networks", 2019 (tuning of batch-norm statistics after quantization); folding as in Jacob et
    al., 2018, section 3.2.

    Attributes:
        samples: calibration samples; their activations are held in memory.
        batch_size: samples per forward pass.
    """

    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Scale the weights and replace the biases of the quantized network.

        Raises:
            BadInputError: no stage before this one has quantized the network, or there are no
                calibration samples.
        """
        quantized = self.network(state)
        batches = list(calibration_inputs(state.subject.task, self.samples, self.batch_size))
        matched = match_statistics(state.graph, quantized, batches)
        return replace(state, quantized=matched), {}


@torch.no_grad()
def match_statistics(
    reference: fx.GraphModule, network: QuantizedNetwork, batches: list[tuple[Tensor, ...]]
) -> QuantizedNetwork:
    """Return a quantized network whose layers have the float network's means and deviations.

    Args:
        reference: canonical float graph that the network was quantized from.
        network: its quantized form; stays as it is.
        batches: calibration inputs, one tuple of float32 tensors per batch.
    """
    simulation = Simulation(network.graph, network.encodings)
    wanted = _statistics(reference, simulation, batches)
    found: dict[fx.Node, tuple[Tensor, Tensor | None]] = {}
    ranges: dict[fx.Node, Tensor] = {}
    values: list[dict[fx.Node, Any]] = [{} for _ in batches]
    last = last_users(network.graph.graph)
    inputs = 0
    for node in network.graph.graph.nodes:
        if node.op in ("get_attr", "output"):
            continue
        if node.op == "placeholder":
            for seen, batch in zip(values, batches, strict=True):
                seen[node] = batch[inputs]
            inputs += 1
            continue
        own = node in simulation.scales and not simulation.shares_weight(node)
        if own and simulation.bias(node) is not None:
            before = ChannelStatistics(channel_axis(node))
            for seen in values:
                before.add(simulation.compute(node, seen))
            weight, bias, amax = _rescaled(simulation, node, before, wanted[node.name])
            simulation.scales[node] = weight_scales(amax, simulation.weight_qmax)
            simulation.set_weight(node, weight, bias)
            found[node], ranges[node] = (weight, bias), amax
        for seen in values:
            seen[node] = simulation.compute(node, seen)
            for done in last.get(node, ()):
                seen.pop(done, None)
    return replace_parameters(network.graph, network.encodings, found, ranges)


def _statistics(
    reference: fx.GraphModule, simulation: Simulation, batches: Iterable[tuple[Tensor, ...]]
) -> dict[str, ChannelStatistics]:
    """Return what the quantized layers' outputs are in the float network, by the layer's name."""
    names = {node.name for node in simulation.weighted}
    layers = [node for node in reference.graph.nodes if node.name in names]
    seen = observe_channels(reference, batches, {node: channel_axis(node) for node in layers})
    return {node.name: statistics for node, statistics in seen.items()}


def _rescaled(
    simulation: Simulation, node: fx.Node, before: ChannelStatistics, wanted: ChannelStatistics
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer's weight, bias and weight ranges that give its output the wanted statistics.

    Its output y becomes (y - mean) * factor + wanted mean. The ranges grow where the bias would
    not fit int32.
    """
    smallest = torch.finfo(torch.float32).tiny
    ratio = wanted.deviation.clamp(min=smallest) / before.deviation.clamp(min=smallest)
    factor = ratio.clamp(1 / MOST, MOST)
    bias = simulation.bias(node)
    if bias is None:
        raise ValueError(f"'{node.name}' has no bias")
    shifted = ((bias.double() - before.mean) * factor + wanted.mean).float()
    weight = simulation.weight(node)
    scaled = weight * per_channel(factor.float(), row_of(node).weight_axis, weight.ndim)
    amax = simulation.scales[node] * simulation.weight_qmax * factor.float()
    affine = simulation.affine(Weighted.of(node).input, node)
    if affine is not None:
        amax = torch.maximum(amax, smallest_amax(shifted, affine.scale, simulation.weight_qmax))
    return scaled, shifted, amax
