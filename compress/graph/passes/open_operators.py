"""Write composite operators as the simpler ones that the quantizer and the runtimes know."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import (
    get_tensor,
    insert_constant,
    insert_shaped_call,
    is_constant,
    tensor_of,
)
from edgedl.compress.graph.operators.table import MASKED_BELOW, aten
from edgedl.compress.graph.passes.products import scale_producer

# Beside a score this low any other takes all that softmax gives.
HIDDEN = -1e9


def open_silu(module: fx.GraphModule, node: fx.Node) -> None:
    """Write SiLU as what it is, ``x * sigmoid(x)``: runtimes have int8 kernels for those two.

    Source: Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units", 2018, equation 6.
    """
    x = node.args[0]
    gate = insert_shaped_call(module, node, aten.sigmoid.default, x)
    _replace(module, node, insert_shaped_call(module, node, aten.mul.Tensor, x, gate))


def open_attention(module: fx.GraphModule, node: fx.Node) -> None:
    """Write attention as matmul, mask, softmax, matmul; the scale goes into the query.

    Source: Vaswani et al., "Attention is all you need", 2017, equation 1 and section 3.2.3.
    """
    query, key, value = node.args[:3]
    rest = dict(zip(("attn_mask", "dropout_p", "is_causal"), node.args[3:], strict=False))
    options: dict[str, Any] = {**rest, **node.kwargs}
    scale, mask = options.pop("scale", None), options.pop("attn_mask", None)
    causal = options.pop("is_causal", False)
    if any(options.values()) or not isinstance(query, fx.Node) or not isinstance(key, fx.Node):
        return
    if causal:
        mask = _causal_mask(module, node, query, key)
        if mask is None:
            return
    scale = 1 / math.sqrt(query.meta["val"].shape[-1]) if scale is None else float(scale)
    shared = query in (key, value)
    if shared or not scale_producer(module, query, scale):
        query = insert_shaped_call(module, node, aten.mul.Tensor, query, scale)
    turned = insert_shaped_call(module, node, aten.transpose.int, key, -2, -1)
    scores = insert_shaped_call(module, node, aten.matmul.default, query, turned)
    if isinstance(mask, fx.Node):
        scores = _mask(module, node, scores, mask)
    weights = insert_shaped_call(module, node, aten.softmax.int, scores, -1)
    _replace(module, node, insert_shaped_call(module, node, aten.matmul.default, weights, value))


def _causal_mask(
    module: fx.GraphModule, node: fx.Node, query: fx.Node, key: fx.Node
) -> fx.Node | None:
    """Return the constant that hides from every position those behind it, float32 [L, S]."""
    length, seen = query.meta["val"].shape[-2], key.meta["val"].shape[-2]
    if not (isinstance(length, int) and isinstance(seen, int)):
        return None
    hidden = torch.full((length, seen), HIDDEN).triu(1)
    return insert_constant(module, node, f"{node.name}_causal", hidden)


def _mask(module: fx.GraphModule, node: fx.Node, scores: fx.Node, mask: fx.Node) -> fx.Node:
    """Add a mask to the scores; of one of truth values, False is a huge negative number.

    Chosen in place of the scores, TFLite's converter would round that number with them.
    """
    if tensor_of(module, mask).dtype == torch.bool:
        mask = insert_shaped_call(module, node, aten.where.Scalar, mask, 0.0, HIDDEN)
    return insert_shaped_call(module, node, aten.add.Tensor, scores, mask)


def open_masked_scores(module: fx.GraphModule, node: fx.Node) -> None:
    """Write scores that a number hides in places from a softmax as a sum with a mask.

    TFLite's converter would round the number with the scores.
    """
    if any(user.target is not aten.softmax.int for user in node.users):
        return
    # The mask, what stands where it is true, and what where it is false.
    filling = node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor)
    mask, first, second = (node.args[i] for i in ((1, 2, 0) if filling else (0, 1, 2)))
    numbers = [_number(module, value) for value in (first, second)]
    hidden = next((n for n in numbers if n is not None), 0.0)
    scores = second if numbers[0] is not None else first
    if hidden > MASKED_BELOW or not isinstance(scores, fx.Node):
        return
    if tensor_of(module, scores).shape != node.meta["val"].shape:
        return
    values = [0.0 if n is None else max(n, HIDDEN) for n in numbers]
    added = insert_shaped_call(module, node, aten.where.Scalar, mask, *values)
    _replace(module, node, insert_shaped_call(module, node, aten.add.Tensor, scores, added))


def _number(module: fx.GraphModule, value: Any) -> float | None:
    """Return a number, or what a stored tensor of one number is; None for anything else."""
    if is_constant(value):
        stored = get_tensor(module, str(value.target))
        return float(stored) if stored.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None


def open_split(module: fx.GraphModule, node: fx.Node) -> None:
    """Write a split or chunk as one slice per part: slices move values, a list has no encoding."""
    axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    sizes = [part.shape[axis] for part in node.meta["val"]]

    def part(index: int) -> tuple[Any, ...]:
        start = sum(sizes[:index])
        return aten.slice.Tensor, axis, start, start + sizes[index]

    _open_parts(module, node, part)


def open_unbind(module: fx.GraphModule, node: fx.Node) -> None:
    """Write an unbind as one select per part, for the same reason."""
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    _open_parts(module, node, lambda index: (aten.select.int, axis, index))


def _open_parts(
    module: fx.GraphModule, node: fx.Node, part: Callable[[int], tuple[Any, ...]]
) -> None:
    """Replace every item of a list by an operator on what the list is made of.

    Args:
        module: holds the graph.
        node: gives the list.
        part: maps the item's position to the operator and what it takes behind its input.
    """
    users = list(node.users)
    if any(u.target is not operator.getitem or not isinstance(u.args[1], int) for u in users):
        return
    for user in users:
        function, *arguments = part(int(user.args[1]))  # type: ignore[arg-type]
        made = insert_shaped_call(module, user, function, node.args[0], *arguments)
        _replace(module, user, made)
    module.graph.erase_node(node)


def _replace(module: fx.GraphModule, node: fx.Node, by: fx.Node) -> None:
    """Let everything read another node, and drop this one.

    Written in place it would still run, for what it does to its input.
    """
    node.replace_all_uses_with(by)
    module.graph.erase_node(node)
