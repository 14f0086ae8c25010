"""Pools whose windows are not all alike."""

import operator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import Insert, insert_constant, inserter
from edgedl.compress.graph.operators.joining import Item
from edgedl.compress.graph.operators.operator import View, argument, aten, first_input
from edgedl.compress.graph.passes.forms.maxima import MaximaAlone
from edgedl.compress.graph.passes.forms.pools import PoolForms
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.values import shape_of


@dataclass(frozen=True)
class _Average(View):
    kernel_size: list[int]
    stride: list[int]
    padding: list[int]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None


class EvenAverage(Pass):
    """Write an average pool that rounds its size up, or has a divisor, with windows all alike.

    ONNX has no divisor, and runtimes disagree on windows that reach over the edge.

    Before: ``avg_pool2d(x, 3, 2, 0, ceil_mode=True)``.
    After: ``mul(avg_pool2d(pad(x, [0, 1, 0, 1]), 3, 2), c)``, where c makes up for the zeros; only
    ``avg_pool2d(x, 3, 2)`` where no window reaches over the edge.
    """

    requires = (PoolForms,)
    operators = frozenset({aten.avg_pool2d.default})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Rewrite one pool of [..., H, W] of known height and width."""
        pool, source = _Average.of(node), first_input(node)
        if not pool.ceil_mode and pool.divisor_override is None:
            return None
        before, after = (shape_of(n)[-2:] for n in (source, node))
        if not all(isinstance(size, int) for size in (*before, *after)):
            return None
        kernel, padding = _pair(pool.kernel_size), _pair(pool.padding)
        stride = _pair(pool.stride) if pool.stride else kernel
        spans = [(n - 1) * s + k for n, s, k in zip(after, stride, kernel, strict=True)]
        over = [span - size - p for span, size, p in zip(spans, before, padding, strict=True)]
        insert = inserter(module, node)
        # Of the last axis first: what stands before, and what stands behind it.
        pads = [padding[1], max(0, over[1]), padding[0], max(0, over[0])]
        padded = insert(aten.constant_pad_nd.default, source, pads) if any(pads) else source
        even = insert(aten.avg_pool2d.default, padded, kernel, stride)
        ones = torch.ones(1, *before)
        exact = aten.avg_pool2d.default(
            ones,
            kernel,
            stride,
            padding,
            pool.ceil_mode,
            pool.count_include_pad,
            pool.divisor_override,
        )
        plain = aten.avg_pool2d.default(torch.nn.functional.pad(ones, pads), kernel, stride)
        return _times(module, node, even, exact / plain)


def _times(module: fx.GraphModule, node: fx.Node, value: fx.Node, factor: Tensor) -> fx.Node:
    insert = inserter(module, node)
    first = float(factor.flatten()[0])
    if bool((factor - first).abs().max() <= 1e-6 * abs(first)):
        return value if first == 1.0 else insert(aten.mul.Tensor, value, first)
    stored = insert_constant(module, node, f"{node.name}_windows", factor)
    return insert(aten.mul.Tensor, value, stored)


def _pair(sizes: list[int]) -> list[int]:
    return [*sizes, *sizes][:2]


class AdaptiveMaximum(Pass):
    """Write an adaptive maximum pool as a plain one, or as maxima of slices.

    No converter has it. Its windows are rectangles, so that rows and columns follow each other.

    Before: ``adaptive_max_pool2d(x, 4)``.
    After: ``max_pool2d(x, 2)`` of eight rows and columns; of seven
    ``cat([amax(slice(x, 2, 0, 2), [2], True), ...], 2)``, and the same of the columns.
    """

    requires = (MaximaAlone,)
    operators = frozenset({aten.adaptive_max_pool2d.default})
    takes_name = True

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Rewrite one pool of [..., H, W] whose places nobody reads."""
        source, users = first_input(node), list(node.users)
        if any(user.target is not operator.getitem or Item.of(user).index != 0 for user in users):
            return None
        before, after = shape_of(source)[-2:], _pair(list(argument(node, "output_size")))
        if not all(isinstance(size, int) for size in before):
            return None
        insert = inserter(module, node)
        if all(b % a == 0 for b, a in zip(before, after, strict=True)):
            kernel = [b // a for b, a in zip(before, after, strict=True)]
            result = insert(aten.max_pool2d.default, source, kernel, kernel)
        else:
            result = source
            for axis, size, count in zip((-2, -1), before, after, strict=True):
                result = _maxima(insert, result, axis, size, count)
        for user in users:
            user.replace_all_uses_with(result)
            module.graph.erase_node(user)
        return result


def _maxima(insert: Insert, value: fx.Node, axis: int, size: int, count: int) -> fx.Node:
    """Return the maxima of ``count`` windows along an axis.

    Source: torch's adaptive pools: window i is from floor(i * size / count) to
    ceil((i + 1) * size / count).
    """
    parts = []
    for index in range(count):
        start, end = index * size // count, -(-(index + 1) * size // count)
        window = insert(aten.slice.Tensor, value, axis, start, end)
        parts.append(insert(aten.amax.default, window, [axis], True))
    joined: fx.Node = parts[0] if count == 1 else insert(aten.cat.default, parts, axis)
    return joined
