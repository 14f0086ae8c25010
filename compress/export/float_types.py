"""A float graph in half precision, with float32 inputs and outputs."""

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import (
    copy_graph,
    finish,
    get_tensor,
    input_nodes,
    insert_call,
    is_constant,
)
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.values import is_floating, value_of


def to_float16(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that computes in float16 between casts at its inputs and outputs."""
    return _to_half(graph, torch.float16)


def to_bfloat16(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that computes in bfloat16 between casts at its inputs and outputs.

    It has float32's range with 8 bits of precision, so that nothing overflows.

    Source: Kalamkar et al., "A study of bfloat16 for deep learning training", 2019, section 3.
    """
    return _to_half(graph, torch.bfloat16)


def _to_half(graph: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    half = copy_graph(graph).to(dtype)
    for node in input_nodes(half):
        if not is_floating(node):
            continue
        cast = _cast(half.graph, node, node.next, dtype)
        for user in [u for u in node.users if u is not cast]:
            user.replace_input_with(node, cast)
    for node in list(half.graph.nodes):
        # A tensor made on the way, such as the first state of a recurrent layer, or of a mask.
        if node.op == "call_function" and node.kwargs.get("dtype") is torch.float32:
            node.update_kwarg("dtype", dtype)
        elif _makes_floats(half, node):
            cast = _cast(half.graph, node, node.next, dtype)
            node.replace_all_uses_with(
                cast, delete_user_cb=lambda user, cast=cast: user is not cast
            )
    result = next(n for n in half.graph.nodes if n.op == "output")
    for node in result.all_input_nodes:
        result.replace_input_with(node, _cast(half.graph, node, result, torch.float32))
    return finish(half)


def _makes_floats(module: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether an operator computes floats and reads none."""

    def floating(source: fx.Node) -> bool:
        stored = get_tensor(module, str(source.target)) if is_constant(source) else None
        value = value_of(source) if stored is None else stored
        return isinstance(value, Tensor) and value.is_floating_point()

    return (
        node.op == "call_function"
        and floating(node)
        and not any(floating(source) for source in node.all_input_nodes)
    )


def _cast(graph: fx.Graph, node: fx.Node, before: fx.Node, dtype: torch.dtype) -> fx.Node:
    return insert_call(graph, before, aten.to.dtype, node, dtype)
