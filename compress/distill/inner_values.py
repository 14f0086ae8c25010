"""Read values inside a traced network by the module they come from."""

from torch import fx

from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.graph.values import is_floating
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import nearest_few


def with_inner_values(
    network: TracedNetwork, paths: tuple[str, ...], role: str = "network"
) -> TracedNetwork:
    """Return the network with values inside it as further outputs.

    Training one trains the other: parameters and buffers are the same tensors.

    Args:
        network: of ``export_graph``; its operators know the modules they come from.
        paths: of modules, such as "stack2". The value of a module is what its last operator
            gives to the rest of the network, in the last call where there are several.
        role: what messages call the network.

    Returns:
        A network that returns a flat tuple: the outputs, then one value per path.

    Raises:
        BadInputError: a path names no module that computes something.
    """
    source = network.graph
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(source.graph, copies)
    values = []
    for path in paths:
        node = copies[_last_operator(source, path, role)]
        with graph.inserting_after(node):
            # An operator after it may work in place, and the value is the one before.
            values.append(graph.call_function(aten.clone.default, (node,)))
    graph.output((*(copies[n] for n in output_nodes(source)), *values))
    return TracedNetwork(fx.GraphModule(source, graph))


def _last_operator(module: fx.GraphModule, path: str, role: str) -> fx.Node:
    """Return the last operator of a module whose value is used outside it."""
    computed: list[fx.Node] = [
        n for n in module.graph.nodes if n.op == "call_function" and is_floating(n)
    ]
    own = [n for n in computed if _is_inside(n, path)]
    if not own:
        names = sorted({name for n in computed for name in _paths(n)})
        raise BadInputError(f"the {role} computes no module '{path}'{nearest_few(path, names)}")
    given = [n for n in own if any(not _is_inside(user, path) for user in n.users)]
    return (given or own)[-1]


def _paths(node: fx.Node) -> list[str]:
    """Return the paths of the modules around an operator, the outermost first."""
    steps = layer_name(node).split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps) + 1) if steps[0]]


def _is_inside(node: fx.Node, path: str) -> bool:
    return path in _paths(node)
