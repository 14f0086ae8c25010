"""Run graphs on arrays, and count what a module computes."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.graph.widened import widened
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.backend import Array
from edgedl.runtime.tensors import Floats


def count_parameters(module: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(p.numel() for p in module.parameters())


def without_onednn() -> AbstractContextManager[None]:
    """Return a context in which torch computes with its own kernels alone."""
    unchanged = torch.backends.mkldnn.allow_tf32
    return torch.backends.mkldnn.flags(enabled=False, allow_tf32=unchanged)


def count_macs(module: nn.Module, example_inputs: tuple[Tensor, ...]) -> int:
    """Return the multiply-accumulates of one forward pass (torch counts two operations each).

    Fused operators that torch cannot count are off meanwhile: oneDNN's recurrent layer, attention
    in one kernel, and a whole attention layer in one.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            without_onednn(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
            torch.no_grad(),
        ):
            module(*example_inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 2


def run_graph(graph: fx.GraphModule, inputs: tuple[Array, ...]) -> tuple[Floats, ...]:
    """Run a graph on float32 arrays [N, ...] and return its outputs as arrays."""
    graph = widened(graph)
    with torch.no_grad():
        given = in_fast_layout(graph, tuple(torch.tensor(x) for x in inputs))
        outputs = as_tuple(graph(*given))
    return tuple(y.float().contiguous().numpy() for y in outputs)
