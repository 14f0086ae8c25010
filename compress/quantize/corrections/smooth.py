"""The stage that moves outliers of activations into the weights of the layers that read them."""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.graph.edit import copy_graph, finish
from edgedl.compress.graph.operators.normalization import LAYER_NORM
from edgedl.compress.graph.operators.operator import Weighted
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.quantize.corrections.channel_paths import (
    check_same,
    input_amax,
    own_parameters,
    scale_inputs,
    weight_of,
)
from edgedl.compress.quantize.corrections.channel_readers import (
    divide_outputs,
    find_readers,
    weighted_layers,
)
from edgedl.compress.quantize.corrections.channel_statistics import (
    ChannelStatistics,
    channel_axis,
    observe_channels,
)
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import SHARED_WEIGHTS, ModelState, Trait
from edgedl.compress.subject.calibration import calibration_inputs


class Smooth(Stage, frozen=True, tag="smooth"):
    """SmoothQuant: a factor per input channel moves from activations into weights.

    What produces the activations is divided by the factor, and what reads them multiplied: exact
    but for float rounding. The producer is a layer norm that only linear layers read, all of which
    share one factor, maybe behind operators that move whole rows of channels; or a convolution or
    linear layer with nothing but homogeneous operators (ReLU, pooling, flatten) before the one
    layer that reads it. A norm that a residual sum reads too (post-norm) stays as it is.

    Attributes:
        alpha: how much of the difficulty moves into the weights: 0 makes the weights' channels
            alike, 1 the activations'.
        samples: calibration samples that show the outliers; memory does not grow with them.
        batch_size: samples per forward pass.
    """

    undoes: ClassVar[frozenset[Trait]] = frozenset({SHARED_WEIGHTS})

    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.5
    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Rewrite the float network.

        Raises:
            NotEquivalentError: float32 cannot hold the smoothed weights.
        """
        graph = copy_graph(state.graph)
        readers = find_readers(graph.graph)
        if not readers:
            state.progress.note(
                "smooth: no norm or layer can be divided by a factor, the network is unchanged"
            )
        own_parameters(graph, weighted_layers(readers))
        batches = list(calibration_inputs(state.subject.task, self.samples, self.batch_size))
        observed = {producer: _observed(producer, layers) for producer, layers in readers.items()}
        axes = {node: channel_axis(readers[producer][0]) for producer, node in observed.items()}
        seen = observe_channels(graph, batches, axes) if axes else {}
        for producer, layers in readers.items():
            largest = _per_channel(graph, producer, seen[observed[producer]])
            factor = smoothing_factor(graph, layers, largest, self.alpha)
            divide_outputs(graph, producer, factor)
            for layer in layers:
                scale_inputs(graph, layer, factor)
        smoothed = finish(graph)
        check_same(state.graph, smoothed, batches[0], "smooth")
        changed = sum(len(layers) for layers in readers.values())
        return replace(state, graph=smoothed), {"layers": changed}


def _observed(producer: fx.Node, layers: list[fx.Node]) -> fx.Node:
    """Return the activations whose outliers are meant: all of a norm, or what the layer reads."""
    return producer if row_of(producer) is LAYER_NORM else Weighted.of(layers[0]).input


def _per_channel(graph: fx.GraphModule, producer: fx.Node, statistics: ChannelStatistics) -> Tensor:
    """Return the largest activation per channel of the producer; flattened ones are in blocks."""
    if row_of(producer) is LAYER_NORM:
        return statistics.largest
    return statistics.largest.view(len(weight_of(graph, producer)), -1).amax(1)


def smoothing_factor(
    graph: fx.GraphModule, layers: list[fx.Node], largest: Tensor, alpha: float
) -> Tensor:
    """Return s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), over the weights of all the layers.

    A channel without any activation or weight stays as it is.

    Source: Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large
    language models", 2023, equations 3 and 4.
    """
    weights = [input_amax(graph, layer, len(largest)) for layer in layers]
    weight = torch.stack(weights).amax(0)
    factor = largest.pow(alpha) / weight.pow(1 - alpha)
    return torch.where((largest > 0) & (weight > 0), factor, 1.0)
