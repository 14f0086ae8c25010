"""Inputs that a network brings to mean 0 and deviation 1 itself."""

from torch import fx

from edgedl.compress.graph.edit import constant_of
from edgedl.compress.graph.operators.operator import aten, operands
from edgedl.compress.graph.passes.fold.channels import insert_depthwise
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import StoreComputed
from edgedl.compress.graph.values import shape_of


class NormalisationAsDepthwise(Pass):
    """Turn ``(x + offset) * k`` over channels into a 1x1 depthwise conv.

    One integer operator on every runtime. It must not be folded into the convolution behind it:
    that is not exact where the convolution pads with zeros.

    Before: ``mul(add(x, offset), k)``. After: ``conv2d(x, k, offset * k, groups=C)``.
    """

    requires = (ArithmeticForms, StoreComputed)
    operators = frozenset({aten.mul.Tensor})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Replace one product of a sum."""
        inner, k = operands(node)
        if not isinstance(inner, fx.Node) or inner.target is not aten.add.Tensor:
            return None
        x, added = operands(inner)
        offset, factor = constant_of(module, added), constant_of(module, k)
        if offset is None or factor is None or not isinstance(x, fx.Node):
            return None
        shape = shape_of(node)
        if len(shape) != 4 or shape_of(x)[1:] != shape[1:]:
            return None
        if any(c.numel() != shape[1] or c.shape[-2:] != (1, 1) for c in (offset, factor)):
            return None
        factor = factor.flatten()
        return insert_depthwise(module, node, x, factor, offset.flatten() * factor)
