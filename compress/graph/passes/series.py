"""Transposed convolutions of series, [N, C, T]."""

from torch import fx

from edgedl.compress.graph.edit import insert_shaped_call
from edgedl.compress.graph.operators.table import FUSED_ACTIVATIONS, TRANSPOSED, aten
from edgedl.compress.graph.passes.graph_pass import Pass

# What stands behind a layer of series and works on pictures as well.
FOLLOWERS = frozenset({aten.batch_norm.default, *FUSED_ACTIVATIONS})


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
        x, weight, *rest = node.args
        bias, *numbers = rest or [None]
        row = insert_shaped_call(module, node, aten.unsqueeze.default, x, 2)
        stored = insert_shaped_call(module, node, aten.unsqueeze.default, weight, 2)
        # Stride, padding, output padding, groups, dilation; along the one row nothing happens.
        across = ([1], [0], [0], 1, [1])
        pairs = [
            given if isinstance(given, int) else [*one, *given]  # type: ignore[misc]
            for one, given in zip(across, numbers, strict=False)
        ]
        result = insert_shaped_call(module, node, TRANSPOSED, row, stored, bias, *pairs)
        last = node
        while len(last.users) == 1 and next(iter(last.users)).target in FOLLOWERS:
            last = next(iter(last.users))
            result = insert_shaped_call(module, last, last.target, result, *last.args[1:])
        last.replace_all_uses_with(insert_shaped_call(module, last, aten.squeeze.dim, result, 2))
        return node
