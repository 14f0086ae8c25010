"""Objects of the user's are told apart by what they compute."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.stage_store.describe import describe


class Darker:
    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x * self.share

    def method(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + self.share


class Brighter(Darker):
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x / self.share


@dataclass
class Shift:
    by: tuple[int, ...]


def added(x: Tensor, n: int = 2) -> Tensor:
    return x + n


def closure(n: int) -> Callable[[Tensor], Tensor]:
    def inner(x: Tensor) -> Tensor:
        return x + n

    return inner


class Scaled(nn.Module):
    def __init__(self, factor: float, weight: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.layer = nn.Linear(1, 1)
        nn.init.constant_(self.layer.weight, weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.layer(x)


def traced(factor: float) -> TracedNetwork:
    return TracedNetwork(export_graph(Scaled(factor).eval(), (torch.ones(2, 1),)))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n,
        Darker,
        lambda n: Darker(n).method,
        lambda n: Shift((0, n)),
        lambda n: partial(added, n=n),
        closure,
        Scaled,
        lambda n: Scaled(1.0, n),
        traced,
        lambda n: {"a": [torch.tensor(n)], "b": {n}},
        lambda n: nn.Conv2d(1, 1, 3, padding=n),
    ],
)
def test_the_same_is_alike_and_what_holds_other_values_is_not(make: Callable[[int], Any]) -> None:
    torch.manual_seed(0)
    one = describe(make(1))
    torch.manual_seed(0)
    assert describe(make(1)) == one
    torch.manual_seed(0)
    assert describe(make(2)) != one


def test_other_code_is_other() -> None:
    assert describe(Darker(0.5)) != describe(Brighter(0.5))
    assert describe(added) != describe(closure)
    assert describe(added) == describe(added)
    assert describe(torch.flip) == describe(torch.flip) != describe(torch.rot90)


def test_what_has_no_source_is_never_alike() -> None:
    scope: dict[str, Any] = {}
    exec("def typed(x): return x", scope)
    assert describe(scope["typed"]) != describe(scope["typed"])
    loop: list[Any] = []
    loop.append(loop)
    assert describe(loop) != describe(loop)
