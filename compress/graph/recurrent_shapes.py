"""The shapes that recurrent layers give, which torch's tracing finds step by step."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from edgedl.compress.graph.operators.operator import aten


@cache
def know_recurrent_shapes() -> None:
    """Tell torch's tracing what shapes recurrent layers give, once in a process.

    Otherwise it unrolls every layer whenever it traces a graph that keeps it, which takes seconds
    for a hundred steps. A torch that has these functions elsewhere traces the same graphs and takes
    that time.
    """
    for layer in (aten.gru.input, aten.lstm.input, aten.rnn_tanh.input, aten.rnn_relu.input):
        kernels: dict[Any, Any] = getattr(layer, "py_kernels", {})
        for key, unrolled in list(kernels.items()):
            kernels[key] = _without_steps(unrolled)
        getattr(layer, "_dispatch_cache", {}).clear()


def _without_steps(unrolled: Callable[..., Any]) -> Callable[..., Any]:
    """Return a layer that is unrolled only where its operators are traced."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.experimental.proxy_tensor import get_proxy_mode
    from torch.utils._pytree import tree_leaves

    def compute(x: Tensor, *arguments: Any) -> Any:
        if type(x) is not FakeTensor or get_proxy_mode() is not None:
            return unrolled(x, *arguments)
        trains = torch.is_grad_enabled() and any(
            isinstance(t, Tensor) and t.requires_grad for t in tree_leaves((x, arguments))
        )
        # Of (hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first).
        hx, *_, bidirectional, batch_first = arguments
        results = _results(x, hx, bidirectional, batch_first)
        return tuple(y.requires_grad_() for y in results) if trains else results

    return compute


def _results(
    x: Tensor, hx: Tensor | Sequence[Tensor], bidirectional: bool, batch_first: bool
) -> tuple[Tensor, ...]:
    """Return tensors without data for the output, the last hidden state, and an LSTM's cell."""
    states = [hx] if isinstance(hx, torch.Tensor) else list(hx)
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    if batch_first:
        output = x.new_empty((x.shape[1], x.shape[0], width)).transpose(0, 1)
    else:
        output = x.new_empty((*x.shape[:2], width))
    return output, *(state.new_empty(state.shape) for state in states)
