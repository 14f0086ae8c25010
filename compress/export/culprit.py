"""Which operator of a graph a converter cannot translate, and where in the user's code it stands.

Converters name operators of their own lowered form. What they stumbled over in the graph that they
were given is found by converting the suspects alone, one by one.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.errors import first_line, root_cause
from edgedl.compress.graph.edit import get_tensor
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators.operator import Ranges
from edgedl.compress.graph.operators.table import row_of

# Suspects that are converted alone; each takes a second or so.
MOST_SUSPECTS = 8

Convert = Callable[[fx.GraphModule, tuple[Tensor, ...]], object]


def explain_failure(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], convert: Convert, error: Exception
) -> str:
    """Return one line that says why a graph was refused: operator, module, source line, a hint.

    Args:
        graph: what was refused.
        inputs: example inputs, one tensor [B, ...] each.
        convert: raises on a graph that the converter refuses.
        error: what it raised.
    """
    reason = first_line(root_cause(error))
    node = find_culprit(graph, inputs, convert, reason)
    if node is None:
        return f"the graph: {reason}"
    return (
        f"the operator {node.target}{place(node)}: {reason}; write it with other operators, or "
        "leave this runtime out of the targets"
    )


def find_culprit(
    graph: fx.GraphModule, inputs: tuple[Tensor, ...], convert: Convert, reason: str
) -> fx.Node | None:
    """Return the first operator that the converter refuses alone too; None if there is no such.

    The operators that every runtime has are no suspects; those that the reason seems to name come
    first. Of one kind only the first is tried.
    """
    suspects: dict[Any, fx.Node] = {}
    for node in graph.graph.nodes:
        is_operator = isinstance(node.target, torch._ops.OpOverload)
        floats = is_operator and row_of(node).ranges is Ranges.FLOAT
        if floats and node.target.namespace == "aten":
            suspects.setdefault(node.target, node)
    ordered = sorted(suspects.values(), key=lambda n: not _is_named(n, reason))[:MOST_SUSPECTS]
    watch = _Watch(graph, set(ordered))
    try:
        with torch.no_grad():
            watch.run(*inputs)
    except Exception:
        # What torch itself cannot compute, for whatever reason, has no culprit in the exporter.
        return None
    for node in ordered:
        alone, values = _alone(graph, node, watch.arguments[node])
        try:
            convert(alone, values)
        except Exception:
            # Whatever it raises, this is the operator that was looked for.
            return node
    return None


def place(node: fx.Node) -> str:
    """Return where an operator stands: the path of its module, and the line in its source."""
    name = layer_name(node)
    lines = re.findall(r'File "(.+?)", line (\d+)', str(node.meta.get("stack_trace") or ""))
    module = f" in '{name}'" if name else ""
    return f"{module} ({Path(lines[-1][0]).name}, line {lines[-1][1]})" if lines else module


def _is_named(node: fx.Node, reason: str) -> bool:
    """Say whether a reason may speak of an operator: "prims.digamma" of aten.digamma."""
    name = str(node.target).split(".")[1].strip("_")
    words = {word.strip("_") for word in re.findall(r"\w+", reason)}
    return name in words


class _Watch(fx.Interpreter):
    """Runs a graph and keeps what some of its operators read."""

    def __init__(self, graph: fx.GraphModule, watched: set[fx.Node]) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.arguments: dict[fx.Node, dict[fx.Node, Any]] = {}
        self._watched = watched

    def run_node(self, n: fx.Node) -> Any:
        if n in self._watched:
            self.arguments[n] = {source: self.env[source] for source in n.all_input_nodes}
        return super().run_node(n)


def _alone(
    module: fx.GraphModule, node: fx.Node, arguments: dict[fx.Node, Any]
) -> tuple[fx.GraphModule, tuple[Tensor, ...]]:
    """Return a graph of one operator whose computed arguments are inputs, and those."""
    graph = fx.Graph()
    # Sizes become numbers.
    copies: dict[fx.Node, Any] = {}
    root = torch.nn.Module()
    values = []
    for source, value in arguments.items():
        if source.op != "get_attr" and isinstance(value, Tensor):
            copies[source] = graph.placeholder(source.name)
            values.append(value)
        elif source.op != "get_attr":
            copies[source] = value
    for source in arguments:
        if source.op == "get_attr":
            root.register_buffer(source.name, get_tensor(module, str(source.target)))
            copies[source] = graph.get_attr(source.name)
    result = graph.node_copy(node, lambda n: copies[n])
    result.meta = {}
    graph.output(result)
    return fx.GraphModule(root, graph), tuple(values)
