"""What chooses values by their places."""

from torch import fx

from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.operator import Operator, Ranges, argument, aten


def _join_axes(axes: JoinedAxes, node: fx.Node) -> None:
    """Table [words, width]: the words stay."""
    table, result = axes.of(argument(node, "weight")), axes.of(node)
    axes.freeze([table[0]], f"'{node.name}' looks up in it")
    axes.join(node, [*axes.of(argument(node, "indices")), table[1]], result)


ROWS = (
    Operator((aten.embedding.default,), Ranges.PASSES, reads_table=True, join_axes=_join_axes),
    Operator((aten.index_select.default,), Ranges.PASSES),
    *(
        Operator(overloads, chooses=True)
        for overloads in (
            (aten.topk.default,),
            (aten.sort.default, aten.sort.stable),
            (aten.argsort.default,),
        )
    ),
)
