"""Transposed convolutions of series, [N, C, T]."""

from torch import fx

from edgedl.compress.graph.edit import insert_again, inserter, only_reader
from edgedl.compress.graph.operators.activation import CLIPS
from edgedl.compress.graph.operators.convolution import TransposedConvolution
from edgedl.compress.graph.operators.normalization import BATCH_NORM
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.passes.graph_pass import Pass

# What stands behind a layer of series and works on pictures as well.
FOLLOWERS = (BATCH_NORM, *CLIPS)


class SeriesAsPictures(Pass):
    """Write a transposed convolution of series as one of pictures of one row.

    With what follows it alone: a batch norm is folded into it then, and an activation.

    Before: ``relu(conv_transpose1d(x, w))``.
    After: ``squeeze(relu(conv_transpose2d(unsqueeze(x, 2), unsqueeze(w, 2))), 2)``.
    """

    operators = frozenset({aten.conv_transpose1d.default})
    gone = operators

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one of them, and its followers, another time."""
        view, insert = TransposedConvolution.of(node), inserter(module, node)
        result = insert(
            aten.conv_transpose2d.input,
            insert(aten.unsqueeze.default, view.input, 2),
            insert(aten.unsqueeze.default, view.weight, 2),
            view.bias,
            # Along the one row nothing happens.
            [1, *view.stride],
            [0, *view.padding],
            [0, *view.output_padding],
            view.groups,
            [1, *view.dilation],
        )
        last = node
        while (reader := only_reader(last)) is not None and row_of(reader) in FOLLOWERS:
            result = insert_again(module, reader, reader, last, result)
            last = reader
        last.replace_all_uses_with(inserter(module, last)(aten.squeeze.dim, result, 2))
        return node
