"""Objects of the user's are told apart by what they compute."""

import enum
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.recipe.store.describe import Description, describe


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


FACTOR = 2.0


def helper(x: Tensor) -> Tensor:
    return x * FACTOR


def helped(x: Tensor) -> Tensor:
    return helper(x)


class Helped:
    def __call__(self, x: Tensor) -> Tensor:
        return helper(x)

    @staticmethod
    def doubled(x: Tensor) -> Tensor:
        return helper(x)


class Hidden(nn.Module):
    """Holds what it computes with where a state dict does not show it."""

    def __init__(self, gain: float, shift: float = 0.0) -> None:
        super().__init__()
        self._gain = gain
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self._gain + self.shift


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


def filled(module: nn.Module, n: int) -> nn.Module:
    module.__dict__["dtype"] = (torch.float32, torch.float16)[n % 2]
    return module


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
        Hidden,
        lambda n: Hidden(1.0, n),
        lambda n: filled(nn.Identity(), n),
        Kind,
        lambda n: np.array([str(n), None], object),
        lambda n: np.arange(5)[::-1] + n,
        lambda n: np.random.default_rng(n),
        lambda n: torch.Generator().manual_seed(n),
        lambda n: (torch.device("cpu", n), slice(n), range(n), np.float32(n)),
        lambda n: nn.LSTM(2, n),
        lambda n: re.compile("a" * n),
        lambda n: Path("a") / str(n),
        lambda n: lambda x: x + n,
    ],
)
def test_the_same_is_alike_and_what_holds_other_values_is_not(make: Callable[[int], Any]) -> None:
    def of(n: int) -> Description:
        torch.manual_seed(0)
        return describe(make(n))

    assert of(1).text == of(1).text != of(2).text
    assert of(1).unknown == ()


def test_other_code_is_other() -> None:
    assert describe(Darker(0.5)) != describe(Brighter(0.5))
    assert describe(added) != describe(closure)
    assert describe(added) == describe(added)
    assert describe(torch.flip) == describe(torch.flip) != describe(torch.rot90)


@pytest.mark.parametrize("user", [helped, Helped(), Helped.doubled, partial(helped)])
def test_what_code_names_in_its_module_counts(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe(user)
    assert before.unknown == ()
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert describe(user) != before
    monkeypatch.undo()
    assert describe(user) == before
    monkeypatch.setitem(globals(), "helper", added)
    assert describe(user) != before


def test_a_base_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaf(Darker):
        pass

    class Other(Brighter):
        pass

    leaf, other = describe(Leaf(0.5)).text, describe(Other(0.5)).text
    assert leaf.replace("Leaf", "") != other.replace("Other", "")
    assert "return x * self.share" in leaf
    assert "return x / self.share" in other


def test_what_has_no_source_is_named_and_never_alike() -> None:
    scope: dict[str, Any] = {}
    exec("def typed(x): return x", scope)
    first, second = describe(scope["typed"]), describe(scope["typed"])
    assert first.text != second.text
    assert first.unknown == ("builtins.function",)
    assert describe({"lock": threading.Lock()}).unknown == ("_thread.lock",)


def test_what_holds_itself_has_an_end() -> None:
    def loop() -> list[Any]:
        inner: list[Any] = [1]
        inner.append(inner)
        return inner

    assert describe(loop()) == describe(loop())

    def again(n: int) -> int:
        return again(n - 1) if n else 0

    assert describe(again) == describe(again)
