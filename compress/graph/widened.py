"""Half precision on processors that are slow at it."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import copy_graph, finish
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.values import is_floating

HALVES = (torch.float16, torch.bfloat16)
_WIDENED: WeakKeyDictionary[fx.GraphModule, fx.GraphModule] = WeakKeyDictionary()


def widened(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph that computes in float32 what another computes in half precision.

    The result of every operator is rounded to half precision, as by the kernels of runtimes,
    which add up in float32. torch's own are several times slower on processors without such
    arithmetic. A graph without half precision comes back itself; the result is kept for the
    next call, so the graph must not change.
    """
    half = next(
        (t.dtype for t in (*graph.parameters(), *graph.buffers()) if t.dtype in HALVES), None
    )
    if half is None:
        return graph
    if graph not in _WIDENED:
        _WIDENED[graph] = _widen(graph, half)
    return _WIDENED[graph]


def _widen(graph: fx.GraphModule, half: torch.dtype) -> fx.GraphModule:
    wide = copy_graph(graph).float()
    for node in list(wide.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is aten.to.dtype and node.args[1] is half:
            node.target = _rounded
            continue
        if node.kwargs.get("dtype") is half:
            node.update_kwarg("dtype", torch.float32)
        if is_floating(node):
            with wide.graph.inserting_after(node):
                rounded = wide.graph.call_function(_rounded, (node, half))
            node.replace_all_uses_with(
                rounded, delete_user_cb=lambda user, rounded=rounded: user is not rounded
            )
            rounded.meta["val"] = node.meta["val"]
    return finish(wide)


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float32 values, each the nearest one of another type."""
    return x.to(dtype).to(torch.float32)
