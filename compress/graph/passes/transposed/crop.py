"""Transposed convolutions that no runtime computes in integers, for TFLite."""

from dataclasses import replace

from torch import fx

from edgedl.compress.graph.edit import inserter, tensor_of
from edgedl.compress.graph.operators.operator import Weighted, aten
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.transposed.opened import OpenTransposed
from edgedl.compress.graph.passes.transposed.phases import Geometry
from edgedl.compress.graph.values import shape_of


class CropTransposed(Pass):
    """Write the padding of a transposed convolution as a crop of its output.

    The TFLite converter has no form for padding, unless the output is exactly ``stride`` times as
    large as the input; then it stays.

    Before: ``conv_transpose2d(x, w, padding=1)``.
    After: ``slice(slice(conv_transpose2d(x, w), 2, 1, 1 + H), 3, 1, 1 + W)``.
    """

    requires = (OpenTransposed,)
    operators = frozenset({aten.conv_transpose2d.input})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Crop the output of one."""
        view, insert = Weighted.of(node), inserter(module, node)
        geometry = Geometry.of(node, tensor_of(module, view.weight))
        before, after = shape_of(view.input)[2:], shape_of(node)[2:]
        fixed = all(isinstance(size, int) for size in (*before, *after))
        grows_by_stride = all(
            a == b * s for a, b, s in zip(after, before, geometry.stride, strict=True)
        )
        padding = geometry.padding
        beyond = any(e > p for e, p in zip(geometry.output_padding, padding, strict=True))
        if not fixed or not any(padding) or grows_by_stride or beyond:
            return None
        whole = replace(geometry, padding=(0, 0), output_padding=(0, 0)).arguments
        result = insert(aten.conv_transpose2d.input, view.input, view.weight, view.bias, *whole)
        for axis, (start, size) in enumerate(zip(padding, after, strict=True), start=2):
            result = insert(aten.slice.Tensor, result, axis, start, start + size)
        return result
