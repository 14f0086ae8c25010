"""What rewritten graphs are held against."""

from collections import Counter
from collections.abc import Callable

import torch
from small_networks import noise
from torch import Tensor, fx, nn

from edgedl.compress.graph.trace import trace


def assert_numerically_equal(
    before: Callable[..., Tensor], after: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """Both compute the same of the inputs, up to float rounding."""
    with torch.no_grad():
        torch.testing.assert_close(after(*inputs), before(*inputs), rtol=1e-5, atol=5e-6)


def traced(module: nn.Module, *shape: int) -> fx.GraphModule:
    """Trace and hold the graph against the module on other data, more tightly than trace does."""
    graph = trace(module.eval(), (noise(2, *shape),))
    assert_numerically_equal(module, graph, noise(5, *shape, seed=8))
    return graph


def operators(graph: fx.GraphModule) -> Counter[str]:
    """How often a graph calls each operator."""
    return Counter(
        str(n.target.overloadpacket.__name__)
        for n in graph.graph.nodes
        if isinstance(n.target, torch._ops.OpOverload)
    )
