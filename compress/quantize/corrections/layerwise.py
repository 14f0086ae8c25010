"""Walk a network layer by layer, float and quantized side by side, and correct each layer.

A layer is corrected on the inputs it will really get: those that the quantized layers before it,
already corrected, compute.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.encodings import WEIGHT_QMAX, Encodings
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation, fake_quantize, last_users
from edgedl.compress.graph.edit import copy_graph, finish, insert_constant
from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.graph.operators.operator import Weighted, set_argument

# Paths of corrected parameters end so, behind the name of the layer that reads them.
WEIGHT, BIAS = "_corrected_weight", "_corrected_bias"


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer in the middle of its network.

    Attributes:
        node: the operator.
        weight: float32 weight, as the operator takes it.
        bias: float32 [C_out], or None.
        scales: step of the weight's grid, float32 [C_out].
        float_inputs: what it reads in the float network, one tensor per batch.
        inputs: what it reads in the quantized network, one tensor per batch.
        qmax: largest integer of the weight.
    """

    node: fx.Node
    weight: Tensor
    bias: Tensor | None
    scales: Tensor
    float_inputs: list[Tensor]
    inputs: list[Tensor]
    qmax: int = WEIGHT_QMAX


Correction = Callable[[Layer], tuple[Tensor, Tensor | None]]


def correct_layers(
    graph: fx.GraphModule,
    encodings: Encodings,
    batches: Iterable[tuple[Tensor, ...]],
    correct: Correction,
) -> QuantizedNetwork:
    """Return the graph and its table with every quantized layer's weight and bias corrected.

    Both streams are held in memory for all batches, freed as soon as nothing reads them. Layers
    that share their weight stay as they are: on its own each would need a weight of its own.

    Args:
        graph: canonical float graph; stays as it is.
        encodings: its table; ranges do not change.
        batches: inputs, one tuple of float32 tensors per batch.
        correct: returns a layer's new weight and bias; one after the other.
    """
    simulation = Simulation(graph, encodings)
    found = _walk(simulation, [in_fast_layout(graph, tuple(b)) for b in batches], correct)
    ranges = {n: encodings.weights[Weighted.of(n).weight_path] for n in found}
    return replace_parameters(graph, encodings, found, ranges)


def replace_parameters(
    graph: fx.GraphModule,
    encodings: Encodings,
    found: dict[fx.Node, tuple[Tensor, Tensor | None]],
    ranges: dict[fx.Node, Tensor],
) -> QuantizedNetwork:
    """Return a copy of a graph with other weights and biases, and the table with their ranges.

    Args:
        graph: canonical float graph; stays as it is.
        encodings: its table.
        found: layer -> its weight, and its bias if it has one.
        ranges: layer -> largest magnitude of each channel of that weight, float32 [C_out].
    """
    corrected = with_parameters(graph, {node.name: pair for node, pair in found.items()})
    new = {f"{node.name}{WEIGHT}": amax for node, amax in ranges.items()}
    used = {str(n.target) for n in corrected.graph.nodes if n.op == "get_attr"}
    weights = {p: amax for p, amax in {**encodings.weights, **new}.items() if p in used}
    return QuantizedNetwork(corrected, replace(encodings, weights=weights))


def with_parameters(
    graph: fx.GraphModule, found: Mapping[str, tuple[Tensor, Tensor | None]]
) -> fx.GraphModule:
    """Return a copy of a graph in which some layers, by name, read other weights and biases."""
    corrected = copy_graph(graph)
    nodes = {node.name: node for node in corrected.graph.nodes}
    for name, (weight, bias) in found.items():
        node = nodes[name]
        set_argument(node, "weight", insert_constant(corrected, node, f"{name}{WEIGHT}", weight))
        if bias is not None:
            set_argument(node, "bias", insert_constant(corrected, node, f"{name}{BIAS}", bias))
    return finish(corrected)


def corrected_parameters(
    tensors: Mapping[str, Tensor],
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return what :func:`with_parameters` was given, from the tensors of the graph it returned."""
    names = [path.removesuffix(WEIGHT) for path in tensors if path.endswith(WEIGHT)]
    return {name: (tensors[f"{name}{WEIGHT}"], tensors.get(f"{name}{BIAS}")) for name in names}


@torch.no_grad()
def _walk(
    simulation: Simulation, batches: list[tuple[Tensor, ...]], correct: Correction
) -> dict[fx.Node, tuple[Tensor, Tensor | None]]:
    found: dict[fx.Node, tuple[Tensor, Tensor | None]] = {}
    exact: list[dict[fx.Node, Any]] = [{} for _ in batches]
    rounded: list[dict[fx.Node, Any]] = [{} for _ in batches]
    last = last_users(simulation.graph.graph)
    inputs = 0
    for node in simulation.graph.graph.nodes:
        if node.op in ("get_attr", "output"):
            continue
        if node in simulation.scales and not simulation.shares_weight(node):
            found[node] = correct(_layer(simulation, node, exact, rounded))
            simulation.set_weight(node, *found[node])
        for batch, values_exact, values_rounded in zip(batches, exact, rounded, strict=True):
            if node.op == "placeholder":
                values_exact[node] = values_rounded[node] = batch[inputs]
                continue
            values_exact[node] = simulation.compute(node, values_exact, active=())
            values_rounded[node] = simulation.compute(node, values_rounded)
            for done in last.get(node, ()):
                values_exact.pop(done, None)
                values_rounded.pop(done, None)
        inputs += node.op == "placeholder"
    return found


def _layer(
    simulation: Simulation,
    node: fx.Node,
    exact: list[dict[fx.Node, Any]],
    rounded: list[dict[fx.Node, Any]],
) -> Layer:
    source = Weighted.of(node).input
    affine = simulation.affine(source, node)
    inputs = [values[source] for values in rounded]
    if affine is not None:
        inputs = [fake_quantize(x, affine) for x in inputs]
    return Layer(
        node,
        simulation.weight(node),
        simulation.bias(node),
        simulation.scales[node],
        [values[source] for values in exact],
        inputs,
        simulation.weight_qmax,
    )
