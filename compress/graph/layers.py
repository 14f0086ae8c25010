"""Find operators by the module they come from: the names a user knows."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import fx

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import nearest_few


def layer_name(node: fx.Node) -> str:
    """Return the dotted path of the module an operator comes from, "" for the network itself."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path: str = list(stack.values())[-1][0]
    return path


def find_layers(nodes: Sequence[fx.Node], patterns: Sequence[str]) -> set[fx.Node]:
    """Return the nodes that patterns name.

    A pattern is the path of a module, which stands for all that is inside it, the name of a node
    of the graph, or either with the wildcards of a shell.

    Raises:
        BadInputError: a pattern matches none of the nodes; the message has the nearest names, of
            single layers and of modules that hold some.
    """
    found: set[fx.Node] = set()
    for pattern in patterns:
        matched = {n for n in nodes if any(fnmatchcase(p, pattern) for p in (*_paths(n), n.name))}
        if not matched:
            names = sorted({name for n in nodes for name in _paths(n) or [n.name]})
            hint = nearest_few(pattern, names) or ": the network has none"
            raise BadInputError(f"no layer is called '{pattern}'{hint}")
        found |= matched
    return found


def find_operators(graph: fx.GraphModule, patterns: Sequence[str]) -> set[fx.Node]:
    """Return the operators of a graph that patterns name, whatever they are.

    Raises:
        BadInputError: a pattern matches none.
    """
    return find_layers([n for n in graph.graph.nodes if n.op == "call_function"], patterns)


def _paths(node: fx.Node) -> list[str]:
    """Return the module an operator comes from and those around it, the outermost first."""
    steps = layer_name(node).split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps) + 1) if steps != [""]]
