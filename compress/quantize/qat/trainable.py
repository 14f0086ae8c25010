"""A quantized network that can be trained: the emitted graph's values, with gradients."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgedl.compress.encodings.calibrate import smallest_amax
from edgedl.compress.encodings.encodings import round_bias, weight_scales
from edgedl.compress.encodings.placement import place, quantized_nodes
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.edit import copy_graph, get_tensor, set_tensor
from edgedl.compress.graph.operators.operator import Weighted
from edgedl.compress.graph.operators.table import has_stored_weight, row_of
from edgedl.compress.quantize.qat.learned_ranges import Learn, LearnedRanges
from edgedl.compress.quantize.qat.learned_step import (
    quantize_activation,
    round_weight,
    straight_through,
)
from edgedl.compress.subject.outputs import as_tuple
from edgedl.compress.targets.target import TRAINED_FOR


class TrainableNetwork(nn.Module):
    """Computes what ``emit`` writes for ONNX Runtime and TFLite, differentiably.

    Weights and biases of all convolutions and linear layers are parameters, in float layers too.
    Batch norms were folded into them when the graph was traced: their statistics are frozen by
    construction, as is customary for quantization-aware training.

    Attributes:
        ranges: the table as parameters.
    """

    def __init__(self, network: QuantizedNetwork, learn: Learn) -> None:
        """Start at a quantized network; it stays as it is."""
        super().__init__()
        # In a list, so that the graph does not become a submodule: its tensors are not trained.
        self._network = [network]
        graph = network.graph.graph
        self._chosen = quantized_nodes(graph, network.encodings)
        # The values are the same for both runtimes, but this placement does not depend on ranges.
        self._placement = place(graph, network.encodings, TRAINED_FOR)
        self._qmax = network.encodings.weight_qmax
        self.ranges = LearnedRanges(graph, network.encodings, learn)
        self._weighted = {n: Weighted.of(n) for n in graph.nodes if has_stored_weight(n)}
        layers = self._weighted.values()
        paths = {p for v in layers for p in (v.weight_path, v.bias_path) if p is not None}
        self._paths = {path: index for index, path in enumerate(sorted(paths))}
        self.tensors = nn.ParameterList(
            nn.Parameter(get_tensor(network.graph, path).clone()) for path in self._paths
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of a batch, float32 [B, ...] each."""
        scales, zero_points = self.ranges.scales(), self.ranges.zero_points()
        weights = self._weight_scales(scales)
        values: dict[fx.Node, Any] = {}
        rounded: dict[fx.Node, Tensor] = {}
        constants: dict[fx.Node | None, Tensor] = {}
        feed = iter(inputs)

        def read(argument: fx.Node) -> Any:
            if argument in constants:
                return constants[argument]
            if node not in self._placement.get(argument, ()):
                return values[argument]
            if argument not in rounded:
                grid = self.ranges.grids[argument.name]
                rounded[argument] = quantize_activation(
                    values[argument], scales[grid], zero_points[grid]
                )
            return rounded[argument]

        for node in self._network[0].graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(feed)
            elif node.op == "get_attr":
                values[node] = self._tensor(str(node.target))
            else:
                constants = self._rounded_constants(node, weights, scales)
                arguments = fx.map_arg(node.args, read)
                options = fx.map_arg(node.kwargs, read)
                if node.op == "output":
                    return as_tuple(arguments[0])
                values[node] = node.target(*arguments, **options)
        raise ValueError("the graph has no output")

    @torch.no_grad()
    def quantized(self) -> QuantizedNetwork:
        """Return the network as trained so far; emitted, it has exactly the learned steps."""
        network = self._network[0]
        graph = copy_graph(network.graph)
        for path in self._paths:
            set_tensor(graph, path, self._tensor(path))
        amax = {**network.encodings.weights, **self._amax(self.ranges.scales())}
        encodings = replace(network.encodings, activations=self.ranges.activations(), weights=amax)
        return QuantizedNetwork(graph, encodings)

    def _tensor(self, path: str) -> Tensor:
        """Return a parameter, or a constant of the graph."""
        index = self._paths.get(path)
        return get_tensor(self._network[0].graph, path) if index is None else self.tensors[index]

    def _input_scale(self, node: fx.Node, scales: Tensor) -> Tensor | None:
        """Return the step on which a layer reads its input, if it reads integers."""
        source = self._weighted[node].input
        if node not in self._placement.get(source, ()):
            return None
        return scales[self.ranges.grids[source.name]]

    def _amax(self, scales: Tensor) -> dict[str, Tensor]:
        """Return the range of every weight, wide enough for the biases it is added to."""
        found: dict[str, Tensor] = {}
        for node, layer in self._weighted.items():
            if node not in self._chosen:
                continue
            path = layer.weight_path
            amax = found.get(path, self.ranges.amax(path))
            input_scale = self._input_scale(node, scales)
            if input_scale is not None and layer.bias_path is not None:
                bias = self._tensor(layer.bias_path)
                amax = torch.maximum(
                    amax, smallest_amax(bias.detach(), input_scale.detach(), self._qmax)
                )
            found[path] = amax
        return found

    def _weight_scales(self, scales: Tensor) -> dict[str, Tensor]:
        return {path: weight_scales(amax, self._qmax) for path, amax in self._amax(scales).items()}

    def _rounded_constants(
        self, node: fx.Node, weights: dict[str, Tensor], scales: Tensor
    ) -> dict[fx.Node | None, Tensor]:
        """Return a layer's weight on its grid, and its bias on that of the accumulator."""
        layer = self._weighted.get(node)
        if layer is None or node not in self._chosen:
            return {}
        steps, axis = weights[layer.weight_path], row_of(node).weight_axis
        weight = round_weight(self._tensor(layer.weight_path), steps, axis, self._qmax)
        found: dict[fx.Node | None, Tensor] = {layer.weight: weight}
        input_scale = self._input_scale(node, scales)
        if input_scale is not None and layer.bias_path is not None:
            bias = self._tensor(layer.bias_path)
            found[layer.bias] = straight_through(bias, round_bias(bias, steps, input_scale))
        return found
