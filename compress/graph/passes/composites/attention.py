"""Attention in one operator."""

import math

import torch
from torch import fx

from edgedl.compress.graph.edit import insert_constant, inserter, tensor_of
from edgedl.compress.graph.operators.attention import Attention
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes.composites.masked_scores import HIDDEN
from edgedl.compress.graph.passes.graph_pass import Pass
from edgedl.compress.graph.passes.products.scale import ScaleInProducer, scale_producer
from edgedl.compress.graph.values import shape_of


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
        view, insert = Attention.of(node), inserter(module, node)
        query, key, mask = view.query, view.key, view.attn_mask
        if view.dropout_p or view.enable_gqa:
            return None
        if view.is_causal:
            length, seen = shape_of(query)[-2], shape_of(key)[-2]
            if not (isinstance(length, int) and isinstance(seen, int)):
                return None
            # It hides from every position those behind it.
            hidden = torch.full((length, seen), HIDDEN).triu(1)
            mask = insert_constant(module, node, f"{node.name}_causal", hidden)
        scale = 1 / math.sqrt(shape_of(query)[-1]) if view.scale is None else float(view.scale)
        shared = query in (key, view.value)
        if shared or not scale_producer(module, query, scale):
            query = insert(aten.mul.Tensor, query, scale)
        scores = insert(aten.matmul.default, query, insert(aten.transpose.int, key, -2, -1))
        if mask is not None:
            if tensor_of(module, mask).dtype == torch.bool:
                # Chosen in place of the scores, TFLite's converter would round the huge negative
                # number with them.
                mask = insert(aten.where.Scalar, mask, 0.0, HIDDEN)
            scores = insert(aten.add.Tensor, scores, mask)
        weights = insert(aten.softmax.int, scores, -1)
        return insert(aten.matmul.default, weights, view.value)
