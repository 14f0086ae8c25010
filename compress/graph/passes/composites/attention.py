"""Attention in one operator."""

import math
from typing import Any

import torch
from torch import fx

from edgedl.compress.graph.edit import insert_constant, insert_shaped_call, tensor_of
from edgedl.compress.graph.operators.table import aten
from edgedl.compress.graph.passes.composites.masked_scores import HIDDEN
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.products.scale import ScaleInProducer, scale_producer


class OpenAttention(Pass):
    """Write attention as matmul, mask, softmax, matmul; the scale goes into the query.

    Before: ``scaled_dot_product_attention(q, k, v, mask)``.
    After: ``matmul(softmax(add(matmul(q * scale, transpose(k)), mask)), v)``.

    Source: Vaswani et al., "Attention is all you need", 2017, equation 1 and section 3.2.3.
    """

    requires = (ScaleInProducer,)
    operators = frozenset({aten.scaled_dot_product_attention.default})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        """Write one attention without dropout as its parts."""
        query, key, value = node.args[:3]
        rest = dict(zip(("attn_mask", "dropout_p", "is_causal"), node.args[3:], strict=False))
        options: dict[str, Any] = {**rest, **node.kwargs}
        scale, mask = options.pop("scale", None), options.pop("attn_mask", None)
        causal = options.pop("is_causal", False)
        if any(options.values()) or not isinstance(query, fx.Node) or not isinstance(key, fx.Node):
            return None
        if causal:
            mask = _causal_mask(module, node, query, key)
            if mask is None:
                return None
        scale = 1 / math.sqrt(query.meta["val"].shape[-1]) if scale is None else float(scale)
        shared = query in (key, value)
        if shared or not scale_producer(module, query, scale):
            query = insert_shaped_call(module, node, aten.mul.Tensor, query, scale)
        turned = insert_shaped_call(module, node, aten.transpose.int, key, -2, -1)
        scores = insert_shaped_call(module, node, aten.matmul.default, query, turned)
        if isinstance(mask, fx.Node):
            scores = _mask(module, node, scores, mask)
        weights = insert_shaped_call(module, node, aten.softmax.int, scores, -1)
        result = insert_shaped_call(module, node, aten.matmul.default, weights, value)
        return result


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
