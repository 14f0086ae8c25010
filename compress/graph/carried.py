"""The graph that a job works on, carried by an exception, for a report on a fault of edgedl's."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, fx

from edgedl.compress.errors import attach_graph
from edgedl.compress.graph.values import value_of


@contextmanager
def carrying(graph: fx.GraphModule) -> Iterator[None]:
    """Let exceptions of the block carry a graph's operators; its weights stay out."""
    try:
        yield
    except Exception as error:
        attach_graph(error, as_text(graph))
        raise


def as_text(graph: fx.GraphModule) -> str:
    """Return one line a node: name, operator, arguments, and type and shape of its value."""
    nodes = graph.graph.nodes
    return "\n".join(f"{node.format_node()}{_described(value_of(node))}" for node in nodes)


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return ""
    return f"  # {value.dtype} {list(value.shape)}"
