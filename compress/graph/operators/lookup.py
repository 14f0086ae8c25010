"""What chooses values by their places."""

from dataclasses import dataclass

from torch import fx

from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.operator import Operator, Ranges, View, aten


@dataclass(frozen=True)
class Embedding(View):
    """Rows of a table [words, width]."""

    weight: fx.Node
    indices: fx.Node


def _join_axes(axes: JoinedAxes, node: fx.Node) -> None:
    """Table [words, width]: the words stay."""
    view = Embedding.of(node)
    table, result = axes.of(view.weight), axes.of(node)
    axes.freeze([table[0]], f"'{node.name}' looks up in it")
    axes.join(node, [*axes.of(view.indices), table[1]], result)


EMBEDDING = Operator(
    "embedding", (aten.embedding.default,), Ranges.PASSES, reads_table=True, join_axes=_join_axes
)
ROWS = (EMBEDDING, Operator("index_select", (aten.index_select.default,), Ranges.PASSES))
