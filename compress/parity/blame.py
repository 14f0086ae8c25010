"""Which layer of a quantized network destroys a part of an output."""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.pair import Pair
from edgedl.compress.encodings.quantized_layers import quantized_layers
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.graph.operators.table import moves_values, row_of
from edgedl.compress.parity.parts import Part, by_size, measure_part
from edgedl.runtime.backend import Array

SAMPLES = 16
# Values of all tensors that are kept at a time: 120 MB of float32 for each of the two graphs.
MOST_VALUES = 30_000_000
# A tensor with as much has no noise that matters: what int8 takes from a clean one is no loss.
CLEAN_DB = 45.0
_ops = torch.ops.quantized_decomposed
_QUANTIZE = _ops.quantize_per_tensor.default
_DEQUANTIZE = _ops.dequantize_per_tensor.default


@dataclass(frozen=True)
class Blame:
    """What destroys a part of an output.

    Attributes:
        layer: by the name that ``--keep-float`` takes; of an operator that computes in float but
            chooses by values that int8 has changed (top-k, argmax), its own. "" if none was found.
        nodes: names of the nodes to keep in float; none where that does not help.
    """

    layer: str
    nodes: frozenset[str] = frozenset()

    @property
    def cure(self) -> str:
        """What to do."""
        if self.nodes:
            return f"--keep-float {self.layer}"
        chooses = f"{self.layer} chooses between nearly equal values: " if self.layer else ""
        return f"{chooses}use a file of another precision"


def find_blame(
    network: QuantizedNetwork, emitted: fx.GraphModule, output: int, inputs: tuple[Array, ...]
) -> Blame:
    """Return the operator at which an output loses most.

    Args:
        network: the float graph and its table.
        emitted: graph with pairs, of the same names.
        output: its number.
        inputs: samples [N, ...] of each input.
    """
    on_the_way = _ancestors(output_nodes(network.graph)[output])
    losses = {n: db for n, db in _losses(network, emitted, inputs).items() if n in on_the_way}
    worst = max(losses, key=lambda n: losses[n], default=None)
    if worst is None or losses[worst] <= 0:
        return Blame("")
    for layer in quantized_layers(network.graph, network.encodings):
        if worst in layer.values and layer.node is not None:
            return Blame(layer.name, frozenset(n.name for n in layer.values))
    chooser = next((n for n in (worst, *_ancestors(worst)) if row_of(n).chooses), None)
    return Blame(_operator(chooser) if chooser is not None else _operator(worst))


def noisiest_layers(
    network: QuantizedNetwork, emitted: fx.GraphModule, inputs: tuple[Array, ...]
) -> list[tuple[str, float]]:
    """Return the layers that lose most, by the names that ``--keep-float`` takes, and their dB."""
    losses = _losses(network, emitted, inputs)
    found = [
        (layer.name, max(losses[node] for node in layer.values if node in losses))
        for layer in quantized_layers(network.graph, network.encodings)
        if layer.node is not None and any(node in losses for node in layer.values)
    ]
    return sorted(found, key=lambda layer: -layer[1])


def _losses(
    network: QuantizedNetwork, emitted: fx.GraphModule, inputs: tuple[Array, ...]
) -> dict[fx.Node, float]:
    """Return by how many dB the result of each operator has less than what it reads.

    Every tensor has as many dB as its weakest part.
    """
    one = _Values(network.graph).of(tuple(x[:1] for x in inputs))
    count = MOST_VALUES // max(1, sum(value.numel() for value in one.values()))
    some = tuple(x[: max(1, min(SAMPLES, count))] for x in inputs)
    exact, rounded = _Values(network.graph).of(some), _Values(emitted).of(some)
    decibels = {
        name: _weakest(rounded[name], value)
        for name, value in exact.items()
        if name in rounded and rounded[name].shape == value.shape
    }
    losses = {}
    for node in network.graph.graph.nodes:
        if node.name in decibels and node.op == "call_function" and not moves_values(node):
            read = [decibels[n.name] for n in _tensors_read(node) if n.name in decibels]
            losses[node] = min(read, default=CLEAN_DB) - decibels[node.name]
    return losses


def _tensors_read(node: fx.Node) -> list[fx.Node]:
    """Return what an operator reads; one of several results reads what its operator does."""
    if node.target is operator.getitem:
        (source,) = node.all_input_nodes
        return source.all_input_nodes
    return node.all_input_nodes


def _operator(node: fx.Node) -> str:
    if node.target is operator.getitem:
        (node,) = node.all_input_nodes
    overload = isinstance(node.target, torch._ops.OpOverload)
    return str(node.target).split(".")[1] if overload else node.name


def _weakest(found: Tensor, reference: Tensor) -> float:
    a, b = found.numpy(), reference.numpy()
    if b.ndim < 1 or not b.size:
        return CLEAN_DB
    whole = Part("all")
    parts = [measure_part(part, a, b) for part in (*by_size(b), whole)]
    return min(CLEAN_DB, *(CLEAN_DB if p.sqnr_db is None else p.sqnr_db for p in parts))


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

    def of(self, inputs: tuple[Array, ...]) -> dict[str, Tensor]:
        """Return the tensors for samples [N, ...]."""
        with torch.no_grad():
            self.run(*(torch.tensor(x) for x in inputs))
        return self.values

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and n.op != "get_attr":
            self.values[self._rounds.get(n, n.name)] = value
        return value
