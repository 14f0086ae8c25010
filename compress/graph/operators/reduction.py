"""What sums, averages or chooses along axes."""

from torch import fx

from edgedl.compress.graph.joined_axes import JoinedAxes
from edgedl.compress.graph.operators.moving import numbers, without
from edgedl.compress.graph.operators.operator import Operator, Ranges, argument, aten, first_input


def reduced_axes(node: fx.Node, dimensions: int) -> set[int]:
    """Return the axes of the input that a reduction runs over, all if none are said."""
    given = numbers(argument(node, "dim"))
    return {d % dimensions for d in given} or set(range(dimensions))


def _join_axes(axes: JoinedAxes, node: fx.Node) -> None:
    """What is summed or averaged over keeps its size; the others are the result's."""
    x = axes.of(first_input(node))
    gone = reduced_axes(node, len(x))
    axes.freeze([x[d] for d in gone], f"'{node.name}' runs over it")
    kept = without(x, gone)
    for result in axes.results(node):
        stays = bool(argument(node, "keepdim"))
        axes.join(node, kept, without(result, gone) if stays else result)


MEAN = Operator((aten.mean.dim,), Ranges.COMPUTES, join_axes=_join_axes)
ROWS = (
    MEAN,
    Operator((aten.sum.dim_IntList,), Ranges.COMPUTES, join_axes=_join_axes),
    Operator((aten.amax.default,), Ranges.PASSES, join_axes=_join_axes),
    *(
        Operator(overloads, join_axes=_join_axes)
        for overloads in (
            (aten.amin.default,),
            (aten.linalg_vector_norm.default,),
            (aten.logsumexp.default,),
            (aten.std.correction, aten.std.dim),
            (aten.var.correction, aten.var.dim),
        )
    ),
    *(
        Operator((overload,), join_axes=_join_axes, chooses=True)
        for overload in (aten.argmax.default, aten.max.dim, aten.min.dim)
    ),
)
