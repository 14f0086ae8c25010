"""Keep layers of a quantized network in float, and see what that brings."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import fx

from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    insert_constant,
    is_constant,
)
from edgedl.compress.graph.operators.operator import argument, set_argument
from edgedl.compress.graph.operators.table import is_weighted
from edgedl.compress.quantize.search.damage import Damage, DamageMeter, as_tensors, labelled_batches
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.task.task import Task


def keep_float(network: QuantizedNetwork, names: Collection[str]) -> QuantizedNetwork:
    """Return the network with more operators in ``float_nodes``; it keeps its weights."""
    encodings = network.encodings
    kept = encodings.float_nodes | frozenset(names)
    return replace(network, encodings=replace(encodings, float_nodes=kept))


def restore_weights(
    reference: fx.GraphModule, network: QuantizedNetwork, names: Collection[str]
) -> QuantizedNetwork:
    """Return the network with the float network's weights and biases in some operators.

    Args:
        reference: canonical float graph that the network was quantized from.
        network: its quantized form.
        names: operators that compute in float; others would lose their corrected weights.
    """
    graph = copy_graph(network.graph)
    nodes = {node.name: node for node in graph.graph.nodes}
    originals = [n for n in reference.graph.nodes if n.name in names and is_weighted(n)]
    for original in originals:
        for part in ("weight", "bias"):
            source = argument(original, part)
            if is_constant(source):
                value = get_tensor(reference, str(source.target))
                node = nodes[original.name]
                path = f"{node.name}_float_{part}"
                set_argument(node, part, insert_constant(graph, node, path, value))
    finished = finish(graph)
    used = {str(n.target) for n in finished.graph.nodes if n.op == "get_attr"}
    weights = {path: amax for path, amax in network.encodings.weights.items() if path in used}
    return QuantizedNetwork(finished, replace(network.encodings, weights=weights))


def measure_damage(
    reference: fx.GraphModule,
    network: QuantizedNetwork,
    task: Task,
    samples: int,
    batch_size: int,
) -> Damage:
    """Return a quantized network's damage against the float one, on calibration samples.

    Raises:
        BadInputError: there are no calibration samples.
    """
    simulation, meter = Simulation(network.graph, network.encodings), DamageMeter(task)
    for batch in labelled_batches(task, samples, batch_size):
        inputs = as_tensors(batch)
        with torch.no_grad():
            exact = as_tuple(reference(*inputs))
        meter.add(exact, simulation(*inputs), batch)
    return meter.result()
