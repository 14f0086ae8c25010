"""Max pools of what was padded with a number below all others, as TensorFlow pads them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import Insert, inserter
from edgedl.compress.graph.operators.operator import View, argument, aten, first_input
from edgedl.compress.graph.passes.forms.side_effects import DropSideEffects
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import shape_of

_AXES: dict[Any, int] = {
    aten.max_pool1d.default: 1,
    aten.max_pool2d.default: 2,
    aten.max_pool3d.default: 3,
}
_PADS = (aten.pad.default, aten.constant_pad_nd.default)
# Numbers that stand for "none": no activation is as low.
_LOWEST = torch.finfo(torch.float16).min


@dataclass(frozen=True)
class _Maximum(View):
    kernel_size: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    ceil_mode: bool


class PaddedMaximum(Pass):
    """Pad before a max pool with what wins nowhere, in place of minus infinity.

    Minus infinity has no place on a grid of integers. The pool itself pads both sides of an axis
    alike; elsewhere the edge stands once more, which is in every window that sees its copy.

    Before: ``max_pool2d(pad(x, [0, 1, 1, 1], "constant", -inf), 3)``.
    After: ``max_pool2d(cat([x, slice(x, -1, -1)], -1), 3, padding=[1, 0])``.
    """

    requires = (DropSideEffects,)
    operators = _AXES
    takes_name = True

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Rewrite one pool."""
        pad, axes = first_input(node), _AXES[node.target]
        if not isinstance(pad, fx.Node) or pad.target not in _PADS or not _pads_with_none(pad):
            return None
        pool, amounts = _Maximum.of(node), list(argument(pad, "pad"))
        if len(amounts) > 2 * axes or min(amounts) < 0:
            return None
        kernel, padding, dilation = (
            _for_each(sizes, axes) for sizes in (pool.kernel_size, pool.padding, pool.dilation)
        )
        # Of the first axis first, as the pool has them.
        amounts += [0] * (2 * axes - len(amounts))
        sides = [(amounts[2 * i], amounts[2 * i + 1]) for i in reversed(range(axes))]
        fits = all(max(s) + p < k for s, p, k in zip(sides, padding, kernel, strict=True))
        # Windows that reach over the edge, or skip places, may see copies alone.
        if not fits or pool.ceil_mode or any(d != 1 for d in dilation):
            return None
        insert, source = inserter(module, node), first_input(pad)
        for axis, ((before, after), size) in enumerate(zip(sides, kernel, strict=True)):
            if before == after and 2 * (before + padding[axis]) <= size:
                padding[axis] += before
            else:
                source = _repeated(insert, source, axis - axes, before, after)
        stride = list(pool.stride) or kernel
        return insert(node.target, source, kernel, stride, padding)


def _pads_with_none(pad: fx.Node) -> bool:
    if pad.target is aten.pad.default and argument(pad, "mode") != "constant":
        return False
    value: Any = argument(pad, "value")
    return isinstance(value, float) and value <= _LOWEST


def _for_each(sizes: list[int], axes: int) -> list[int]:
    return [*sizes, *sizes, *sizes][:axes] if len(sizes) == 1 else list(sizes)


def _repeated(insert: Insert, x: Any, axis: int, before: int, after: int) -> Any:
    """Return a tensor with its first place ``before`` times more, and its last ``after`` times."""
    size = shape_of(x)[axis]
    first = [insert(aten.slice.Tensor, x, axis, 0, 1)] * before if before else []
    last = [insert(aten.slice.Tensor, x, axis, size - 1, size)] * after if after else []
    return insert(aten.cat.default, [*first, x, *last], axis)
