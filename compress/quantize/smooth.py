"""The stage that moves outliers of activations into the weights of the layers that read them."""

from dataclasses import replace
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, fx

from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_constant,
    is_constant,
)
from edgedl.compress.graph.operators import aten, groups_of
from edgedl.compress.quantize.channel_paths import (
    check_same,
    find_paths,
    input_amax,
    own_parameters,
    scale_inputs,
    scale_outputs,
    weight_of,
)
from edgedl.compress.quantize.channel_statistics import (
    ChannelStatistics,
    channel_axis,
    observe_channels,
)
from edgedl.compress.quantize.static import calibration_inputs
from edgedl.compress.stage import ModelState, float_graph
from edgedl.runtime.manifest import HistoryEntry

# What a layer's inputs come from, and the layers that read them.
Readers = dict[fx.Node, list[fx.Node]]


class Smooth(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="stage", tag="smooth"
):
    """SmoothQuant: a factor per input channel moves from activations into weights.

    What produces the activations is divided by the factor, and what reads them multiplied: exact
    but for float rounding. The producer is a layer norm that only linear layers read, all of which
    share one factor, or a convolution or linear layer with nothing but homogeneous operators
    (ReLU, pooling, flatten) before the one layer that reads it.

    Attributes:
        alpha: how much of the difficulty moves into the weights: 0 makes the weights' channels
            alike, 1 the activations'.
        samples: calibration samples that show the outliers; memory does not grow with them.
        batch_size: samples per forward pass.
    """

    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.5
    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 16

    def apply(self, state: ModelState) -> ModelState:
        """Rewrite the float network.

        Raises:
            BadInputError: the network is quantized already.
            NotEquivalentError: float32 cannot hold the smoothed weights.
        """
        unchanged = float_graph(state, "smooth")
        graph = copy_graph(unchanged)
        readers = find_readers(graph.graph)
        own_parameters(graph, _weighted(readers))
        batches = list(calibration_inputs(state.subject.task, self.samples, self.batch_size))
        axes = {r[0].args[0]: channel_axis(r[0]) for r in readers.values()}
        seen = observe_channels(graph, batches, axes) if axes else {}  # type: ignore[arg-type]
        for producer, layers in readers.items():
            largest = _per_channel(graph, producer, seen[layers[0].args[0]])  # type: ignore[index]
            factor = smoothing_factor(graph, layers, largest, self.alpha)
            _divide_outputs(graph, producer, factor)
            for layer in layers:
                scale_inputs(graph, layer, factor)
        smoothed = finish(graph)
        check_same(unchanged, smoothed, batches[0], "smooth")
        entry = HistoryEntry("smooth", msgspec.structs.asdict(self))
        return replace(state, graph=smoothed, history=(*state.history, entry))


def find_readers(graph: fx.Graph) -> Readers:
    """Return what can be divided -> the layers that then multiply.

    Depthwise layers are left out: each of their channels has a weight grid of its own anyhow.
    """
    readers: Readers = {}
    for node in graph.nodes:
        users = list(node.users)
        normed = node.target is aten.layer_norm.default and len(node.args[1]) == 1
        if normed and users and all(_reads(user, node) for user in users):
            readers[node] = users
    for path in find_paths(graph):
        if groups_of(path.consumer) == 1:
            readers[path.producer] = [path.consumer]
    return readers


def _reads(user: fx.Node, node: fx.Node) -> bool:
    return user.target is aten.linear.default and user.args[0] is node and is_constant(user.args[1])


def _weighted(readers: Readers) -> list[fx.Node]:
    layers = [n for n in readers if n.target is not aten.layer_norm.default]
    return list(dict.fromkeys([*layers, *(n for found in readers.values() for n in found)]))


def _per_channel(graph: fx.GraphModule, producer: fx.Node, statistics: ChannelStatistics) -> Tensor:
    """Return the largest activation per channel of the producer; flattened ones are in blocks."""
    if producer.target is aten.layer_norm.default:
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


def _divide_outputs(graph: fx.GraphModule, producer: fx.Node, factor: Tensor) -> None:
    if producer.target is not aten.layer_norm.default:
        scale_outputs(graph, producer, 1 / factor)
        return
    arguments = [*producer.args, None, None][: max(4, len(producer.args))]
    for index, kind in ((2, "weight"), (3, "bias")):
        constant = arguments[index]
        if isinstance(constant, fx.Node):
            value = get_tensor(graph, str(constant.target)) / factor
        elif kind == "weight":
            value = 1 / factor
        else:
            continue
        arguments[index] = insert_constant(graph, producer, f"{producer.name}_own_{kind}", value)
    producer.args = tuple(arguments)
