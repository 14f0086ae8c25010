"""Switch layers of a simulated network, and compute only what that changes."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.encodings.encodings import weight_scales
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.operators.operator import Weighted, first_input
from edgedl.compress.graph.operators.table import has_stored_weight

Values = dict[fx.Node, Any]
Active = Collection[fx.Node] | None


def switchable(reference: fx.GraphModule, network: QuantizedNetwork) -> Simulation:
    """Return a simulation on the float graph whose active layers are those of the network.

    What is switched off computes with the float network's own weights, also where a stage has
    changed those of the quantized one.

    Args:
        reference: canonical float graph that the network was quantized from.
        network: its quantized form; its nodes have the same names, its weights may differ.
    """
    own = {node.name: node for node in network.graph.graph.nodes}
    table = dict(network.encodings.weights)
    weighted = [n for n in reference.graph.nodes if has_stored_weight(n)]
    for node in weighted:
        amax = network.encodings.weights.get(Weighted.of(own[node.name]).weight_path)
        if amax is not None:
            table[Weighted.of(node).weight_path] = amax
    simulation = Simulation(reference, replace(network.encodings, weights=table))
    for node in simulation.weighted:
        twin = Weighted.of(own[node.name])
        simulation.scales[node] = weight_scales(table[twin.weight_path], simulation.weight_qmax)
        bias = None
        if twin.bias_path is not None and simulation.bias(node) is not None:
            bias = get_tensor(network.graph, twin.bias_path)
        simulation.set_weight(node, get_tensor(network.graph, twin.weight_path), bias)
    return simulation


@torch.no_grad()
def run(simulation: Simulation, inputs: tuple[Tensor, ...], active: Active = None) -> Values:
    """Return the value of every node for a batch; see ``Simulation.compute`` for ``active``."""
    values: Values = {}
    feed = iter(inputs)
    for node in simulation.graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(feed)
        elif node.op != "get_attr":
            values[node] = compute(simulation, node, values, active)
    return values


@torch.no_grad()
def rerun(
    simulation: Simulation, values: Values, start: Collection[fx.Node], active: Active = None
) -> tuple[Tensor, ...]:
    """Return the outputs with some nodes computed anew, and all that depends on them.

    Args:
        simulation: may be another than that of ``values``, on the same graph.
        values: what ``run`` gave; stays as it is.
        start: the nodes whose computation differs.
        active: see ``Simulation.compute``.
    """
    current = dict(values)
    fresh: set[fx.Node] = set()
    for node in simulation.graph.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            continue
        if node in start or not fresh.isdisjoint(node.all_input_nodes):
            current[node] = compute(simulation, node, current, active)
            fresh.add(node)
    return outputs(current)


def outputs(values: Values) -> tuple[Tensor, ...]:
    """Return what the network returned."""
    found: tuple[Tensor, ...] = values[next(reversed(values))]
    return found


def compute(simulation: Simulation, node: fx.Node, values: Values, active: Active) -> Any:
    """Compute a node without touching the values before it, also where it works in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None and schema.is_mutable:
        changed = first_input(node)
        if isinstance(changed, fx.Node) and changed in values:
            values = {**values, changed: values[changed].clone()}
    return simulation.compute(node, values, active)
