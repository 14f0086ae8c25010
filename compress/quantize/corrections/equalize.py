"""The stage that makes the channels of neighbouring layers alike, without changing the network."""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.encodings.placement import activation_bounds
from edgedl.compress.graph.edit import copy_graph, finish
from edgedl.compress.graph.operators.convolution import CONVOLUTIONS
from edgedl.compress.graph.operators.operator import aten, first_input, has_padding
from edgedl.compress.graph.operators.pooling import AVG_POOL2D
from edgedl.compress.graph.operators.table import is_clip, row_of
from edgedl.compress.quantize.corrections.channel_paths import (
    ChannelPath,
    add_to_bias,
    by_inputs,
    check_same,
    find_paths,
    input_amax,
    own_parameters,
    scale_inputs,
    scale_outputs,
    weight_of,
)
from edgedl.compress.quantize.corrections.channel_statistics import channel_axis, observe_channels
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import SHARED_WEIGHTS, ModelState, Trait
from edgedl.compress.subject.calibration import calibration_inputs

ROUNDS = 100
# Factors this close to 1, as a share, change nothing worth another round.
CONVERGED = 1e-3


class Equalize(Stage, frozen=True, tag="equalize"):
    """Cross-layer equalization: a factor per channel moves from one layer into the next.

    Exact, but for float rounding, where only positively homogeneous operators stand between two
    layers: nothing, ReLU, leaky ReLU, pooling, a spatial mean, flatten; depthwise layers in chains
    too. ReLU6 and other clamps are not such, and stop it.

    Attributes:
        replace_relu6: first put ReLU in the place of every clamp from 0; this changes the network.
        absorb_bias: move what a channel never falls below on the calibration data into the next
            layer's bias, where that layer does not pad.
        samples: calibration samples, for ``absorb_bias`` and to check equality.
        batch_size: samples per forward pass.
    """

    undoes: ClassVar[frozenset[Trait]] = frozenset({SHARED_WEIGHTS})

    replace_relu6: bool = False
    absorb_bias: bool = True
    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Rewrite the float network.

        Raises:
            NotEquivalentError: float32 cannot hold the equalized weights.
        """
        graph = copy_graph(state.graph)
        if self.replace_relu6:
            open_clamps(graph)
        unchanged = copy_graph(graph)
        paths = find_paths(graph.graph)
        own_parameters(graph, list({n: None for p in paths for n in (p.producer, p.consumer)}))
        equalize_weights(graph, paths)
        batches = list(calibration_inputs(state.subject.task, self.samples, self.batch_size))
        if self.absorb_bias:
            absorb_biases(graph, paths, batches)
        equalized = finish(graph)
        check_same(unchanged, equalized, batches[0], "equalize")
        return replace(state, graph=equalized), {}


def open_clamps(graph: fx.GraphModule) -> None:
    """Put ReLU in the place of ReLU6 and every other clamp of [0, something], in place."""
    for node in graph.graph.nodes:
        if is_clip(node) and activation_bounds(node)[0] == 0.0:
            clipped = first_input(node)
            node.target, node.args, node.kwargs = aten.relu.default, (clipped,), {}


def equalize_weights(graph: fx.GraphModule, paths: list[ChannelPath]) -> None:
    """Give both sides of every path the same largest weight per channel, in place.

    For channel i with largest magnitudes r1 and r2: s = sqrt(r1 / r2), W1 / s, b1 / s, W2 * s;
    again and again, until no factor moves. Channels without any weight on a side stay as they are.

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction",
    2019, section 4.1.1 and 4.1.2, equation 11.
    """
    for _ in range(ROUNDS):
        moved = 0.0
        for path in paths:
            first = weight_of(graph, path.producer).flatten(1).abs().amax(1)
            second = input_amax(graph, path.consumer, len(first))
            factor = torch.where((first > 0) & (second > 0), (first / second).sqrt(), 1.0)
            scale_outputs(graph, path.producer, 1 / factor)
            scale_inputs(graph, path.consumer, factor)
            moved = max(moved, float(factor.log().abs().max()))
        if moved < CONVERGED:
            return


def absorb_biases(
    graph: fx.GraphModule, paths: list[ChannelPath], batches: list[tuple[Tensor, ...]]
) -> None:
    """Move what channels never fall below into the bias of the layer behind, in place.

    The paper takes mean - 3 deviations of a normal distribution as that least value c. Here it is
    the smallest value seen: on every calibration sample max(x, 0) - c = max(x - c, 0) exactly, and
    other samples that fall below it lose only the difference.

    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction",
    2019, section 4.1.3, equations 13 to 15.
    """
    movable = [p for p in paths if _keeps_shift(p)]
    # One pass serves all: what a layer computes before its own shift does not change.
    axes = {p.producer: channel_axis(p.producer) for p in movable}
    seen = observe_channels(graph, batches, axes) if movable else {}
    for path in movable:
        least = seen[path.producer].lo.clamp(min=0)
        if not least.any():
            continue
        weight = by_inputs(graph, path.consumer, len(least))
        brought = (weight * least.view(len(weight), 1, -1, 1)).sum((2, 3)).flatten()
        add_to_bias(graph, path.producer, -least)
        add_to_bias(graph, path.consumer, brought)


def _keeps_shift(path: ChannelPath) -> bool:
    """Say whether a shift of a positive channel reaches every input of the next layer's products.

    Zeros of padding, and averages over them, are not shifted.
    """
    averages = [n for n in path.between if row_of(n) is AVG_POOL2D]
    convolutions = [path.consumer] if row_of(path.consumer) in CONVOLUTIONS else []
    return not any(has_padding(n) for n in (*averages, *convolutions))
