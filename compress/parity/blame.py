"""Which layer of a quantized network destroys a part of an output."""

from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.pair import Pair
from edgedl.compress.encodings.quantized_layers import quantized_layers
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.graph.operators.table import moves_values
from edgedl.compress.parity.parts import Part, by_size, measure_part
from edgedl.runtime.backend import Array

SAMPLES = 16
# A tensor without noise has this.
CLEAN_DB = 100.0
_ops = torch.ops.quantized_decomposed
_QUANTIZE = _ops.quantize_per_tensor.default
_DEQUANTIZE = _ops.dequantize_per_tensor.default


def blamed_layer(
    network: QuantizedNetwork, emitted: fx.GraphModule, output: int, inputs: tuple[Array, ...]
) -> tuple[str, frozenset[str]]:
    """Return the layer at which an output loses most, and its nodes; ("", nothing) if none does.

    Every tensor has as many dB as its weakest part. The layer to blame is the one whose result has
    least of what it reads, on the way to the output.

    Args:
        network: the float graph and its table.
        emitted: graph with pairs, of the same names.
        output: its number.
        inputs: samples [N, ...] of each input.
    """
    batch = tuple(torch.tensor(x[:SAMPLES]) for x in inputs)
    exact, rounded = _Values(network.graph), _Values(emitted)
    with torch.no_grad():
        exact.run(*batch)
        rounded.run(*batch)
    decibels = {
        name: _weakest(rounded.values[name], value)
        for name, value in exact.values.items()
        if name in rounded.values and rounded.values[name].shape == value.shape
    }
    losses = {
        node: min(
            [decibels[n.name] for n in node.all_input_nodes if n.name in decibels], default=CLEAN_DB
        )
        - decibels[node.name]
        for node in _ancestors(output_nodes(network.graph)[output])
        if node.name in decibels and node.op == "call_function" and not moves_values(node)
    }
    for node in sorted(losses, key=lambda n: -losses[n]):
        for layer in quantized_layers(network.graph, network.encodings):
            if node in layer.values and layer.node is not None and losses[node] > 0:
                return layer.name, frozenset(n.name for n in layer.values)
    return "", frozenset()


def _weakest(found: Tensor, reference: Tensor) -> float:
    a, b = found.numpy(), reference.numpy()
    if b.ndim < 1 or not b.size:
        return CLEAN_DB
    whole = Part("all")
    parts = [measure_part(part, a, b) for part in (*by_size(b), whole)]
    return min(CLEAN_DB if part.sqnr_db is None else part.sqnr_db for part in parts)


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    pending = [node]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += one.all_input_nodes
    return found


class _Values(fx.Interpreter):
    """Runs a graph and keeps every float tensor by its node's name, as its readers see it."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.values: dict[str, Tensor] = {}
        self._rounds: dict[fx.Node, str] = {}
        for node in graph.graph.find_nodes(op="call_function", target=_DEQUANTIZE):
            (quantize,) = node.all_input_nodes
            if quantize.target is _QUANTIZE:
                self._rounds[node] = Pair.of(quantize).input.name

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and n.op != "get_attr":
            self.values[self._rounds.get(n, n.name)] = value
        return value
