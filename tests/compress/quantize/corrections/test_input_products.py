"""Second moments of a layer's inputs, against the inputs themselves."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from small_networks import Net, noise
from torch import fx, nn

from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections import input_products as module
from edgedl.compress.quantize.corrections.input_products import input_products
from edgedl.runtime.errors import BadInputError

X = noise(30, 4, 6)


def _graph() -> fx.GraphModule:
    net = Net(
        lambda net, x: net.b(torch.relu(net.a(x))) + net.a(x)[..., :3],
        a=nn.Linear(6, 8),
        b=nn.Linear(8, 3),
    )
    return trace(net.eval(), (X[:2],))


def _layers(graph: fx.GraphModule) -> list[list[fx.Node]]:
    linear = [n for n in graph.graph.nodes if n.target is torch.ops.aten.linear.default]
    by_weight: dict[str, list[fx.Node]] = {}
    for node in linear:
        by_weight.setdefault(str(node.args[1]), []).append(node)
    return list(by_weight.values())


def _batches(size: int = 7) -> Iterable[tuple[torch.Tensor]]:
    return ((x,) for x in X.split(size))


def _expected(graph: fx.GraphModule) -> list[np.ndarray]:
    rows = X.reshape(-1, 6).double().numpy()
    a = graph.get_submodule("a")
    with torch.no_grad():
        hidden = torch.relu(nn.functional.linear(X, a.weight, a.bias)).reshape(-1, 8)
    inner = hidden.double().numpy()
    return [sum(np.outer(r, r) for r in x) / len(x) for x in (rows, inner)]


@pytest.mark.parametrize("largest", [2**29, 1])
def test_they_are_those_of_all_inputs(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_SUM_BYTES", largest)
    graph = _graph()
    found = list(input_products(graph, _layers(graph), _batches))
    assert len(found) == 2
    for a, b in zip(found, _expected(graph), strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-5, atol=1e-6)


def test_passes_are_as_few_as_the_limit_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _graph()
    passes = []

    def batches() -> Iterable[tuple[torch.Tensor]]:
        passes.append(1)
        return _batches()

    list(input_products(graph, _layers(graph), batches))
    assert len(passes) == 1
    monkeypatch.setattr(module, "LARGEST_SUM_BYTES", 1)
    list(input_products(graph, _layers(graph), batches))
    assert len(passes) == 3


def test_no_samples_and_samples_that_are_not_finite_are_refused() -> None:
    graph = _graph()
    with pytest.raises(BadInputError, match="has no samples for quantize_weights"):
        list(input_products(graph, _layers(graph), lambda: ()))
    with pytest.raises(BadInputError, match="are not finite on calibration samples"):
        list(input_products(graph, _layers(graph), lambda: ((X * torch.inf,),)))
