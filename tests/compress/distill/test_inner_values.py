"""Values inside a traced network against forward hooks on the module."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, noise, trained
from torch import Tensor, fx, nn

from edgedl.compress.distill.inner_values import with_inner_values
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.runtime.errors import BadInputError

X = noise(3, 2, 6, 6)


class Block(nn.Module):
    def __init__(self, given: int, wanted: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, wanted, 3, padding=1)
        self.norm = trained(nn.BatchNorm2d(wanted))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def network() -> Net:
    """Return a net where values are changed in place after they were given."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.relu_(m.stem(x))
        for block in m.blocks:
            x = F.relu_(block(x))
        y, _ = m.lstm(m.shared(m.shared(x)).flatten(2))
        return m.head(y.mean(1))

    return Net(
        forward,
        stem=Block(2, 4),
        blocks=nn.ModuleList([Block(4, 4), Block(4, 4)]),
        shared=nn.Conv2d(4, 4, 1),
        lstm=nn.LSTM(36, 5, batch_first=True),
        head=nn.Linear(5, 3),
    ).eval()


@pytest.fixture(scope="module")
def module() -> Net:
    return network()


@pytest.fixture
def traced(graph: fx.GraphModule) -> TracedNetwork:
    return TracedNetwork(copy_graph(graph))


@pytest.fixture(scope="module")
def graph(module: Net) -> fx.GraphModule:
    return export_graph(module, (X,))


def hooked(module: nn.Module, path: str) -> Tensor:
    """Return what a submodule gave in its last call."""
    values: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Any) -> None:
        values.append((output[0] if isinstance(output, tuple) else output).clone())

    handle = module.get_submodule(path).register_forward_hook(keep)
    with torch.no_grad():
        module(X)
    handle.remove()
    return values[-1]


@pytest.mark.parametrize(
    "paths", [("stem",), ("stem.conv", "blocks.0", "blocks.1.norm"), ("shared", "lstm"), ("head",)]
)
def test_values_are_those_of_the_module(
    module: Net, traced: TracedNetwork, paths: tuple[str, ...]
) -> None:
    read = with_inner_values(traced, paths)
    with torch.no_grad():
        output, *values = read(X)
        torch.testing.assert_close(output, module(X))
    for path, value in zip(paths, values, strict=True):
        torch.testing.assert_close(value, hooked(module, path))


def test_training_the_reader_trains_the_network(traced: TracedNetwork) -> None:
    read = with_inner_values(traced, ("stem",)).train()
    before = traced.tensors()
    optimizer = torch.optim.SGD(read.parameters(), 0.1)
    read(X)[0].square().sum().backward()
    optimizer.step()
    read.eval()
    changed = {name for name, tensor in traced.tensors().items() if not tensor.equal(before[name])}
    assert {"stem.conv.weight", "stem.norm.running_mean", "head.bias"} <= changed
    assert torch.equal(read(X)[0], traced(X))


@pytest.mark.parametrize("path", ["stem.con", "block", "stm", "", "nothing at all"])
def test_names_that_match_nothing(traced: TracedNetwork, path: str) -> None:
    with pytest.raises(BadInputError, match="the teacher computes no module"):
        with_inner_values(traced, (path,), "teacher")


def test_a_name_that_is_almost_right_is_told(traced: TracedNetwork) -> None:
    with pytest.raises(BadInputError, match=r"'stem\.con', did you mean 'stem\.conv'\? the near"):
        with_inner_values(traced, ("stem.con",))
