"""Inputs that a network brings to mean 0 and deviation 1 itself."""

from torch import fx

from edgedl.compress.graph.edit import get_tensor, is_constant
from edgedl.compress.graph.operators.table import aten
from edgedl.compress.graph.passes.fold.channels import insert_depthwise, path_of
from edgedl.compress.graph.passes.forms.arithmetic import ArithmeticForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.stored import StoreComputed


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
        inner, k = node.args[:2]
        if not (isinstance(inner, fx.Node) and inner.target is aten.add.Tensor and is_constant(k)):
            return None
        x, added = inner.args[:2]
        if not is_constant(added) or not isinstance(x, fx.Node):
            return None
        channels = node.meta["val"].shape[1] if node.meta["val"].ndim == 4 else 0
        if tuple(x.meta["val"].shape[1:]) != tuple(node.meta["val"].shape[1:]):
            return None
        constants = [get_tensor(module, path_of(c)) for c in (added, k)]
        if any(c.numel() != channels or c.shape[-2:] != (1, 1) for c in constants):
            return None
        offset, factor = (c.flatten() for c in constants)
        return insert_depthwise(module, node, x, factor, offset * factor)
