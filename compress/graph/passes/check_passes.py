"""Hold a graph against itself before every rewrite: which pass changes what it computes?"""

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.passes.graph_pass import MADE_BY, Pass

# Set to 1, every graph that is traced is checked on its example inputs.
SWITCH = "EDGEDL_CHECK_PASSES"
# In float32, of the largest value of a tensor, or of 1 if that is larger.
EQUAL_WITHIN = 1e-5


class PassError(RuntimeError):
    """A pass is wrong: a fault of edgedl's own."""


def checks_passes() -> bool:
    """Say whether the environment asks for the check."""
    return os.environ.get(SWITCH) == "1"


class PassCheck:
    """What a graph computes on its example inputs, compared after every rewrite."""

    def __init__(self, module: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
        """Run a graph that is to be rewritten in place."""
        self._module, self._inputs = module, inputs
        self._values = _values(module, inputs)
        again = _values(module, inputs, seed=1)
        # ``trace`` refuses a network whose outputs depend on chance.
        self._by_chance = _difference(self._values["output"], again["output"]) > 0
        self._rewrote: set[Pass] = set()

    def __call__(self, by: Pass, node: str) -> None:
        """Compare the graph with itself before a pass rewrote a node.

        Raises:
            PassError: an output differs, or the graph is no longer valid.
        """
        where = f"{by.name} at '{node}'"
        try:
            self._module.graph.lint()
            values = _values(self._module, self._inputs)
        except Exception as error:
            raise PassError(f"{where} leaves a graph that does not run: {error}") from error
        before, self._values = self._values, values
        self._rewrote.add(by)
        if not self._by_chance and _difference(before["output"], values["output"]):
            raise PassError(f"{where} changes what the network computes: {self._first(before)}")

    def ensure(self, passes: Sequence[Pass]) -> None:
        """Check that what passes ensure holds behind a walk, for those that rewrote something.

        Raises:
            PassError: it does not.
        """
        for step in passes:
            left = step.ensures(self._module) if step in self._rewrote else []
            if left:
                raise PassError(f"{step.name} leaves '{left[0]}', which is still to be rewritten")

    def _first(self, before: dict[str, list[Tensor]]) -> str:
        """Return the first node whose value is another, by how much, and which pass made it."""
        nodes = [n for n in self._module.graph.nodes if n.name in before]
        apart = {n: _difference(before[n.name], self._values[n.name]) for n in nodes}
        first = next(n for n in nodes if apart[n])
        made = f", which {first.meta[MADE_BY]} made," if MADE_BY in first.meta else ""
        return f"'{first.name}'{made} differs first, by {apart[first]:.2g}"


def _values(
    module: fx.GraphModule, inputs: Sequence[Tensor], seed: int = 0
) -> dict[str, list[Tensor]]:
    """Return the tensors that every node gives, at the time it gives them."""
    recorder = _Recorder(module)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recorder.run(*inputs)
    return recorder.values


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, list[Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        flat = result if isinstance(result, (list, tuple)) else [result]
        self.values[n.name] = [x.clone() for x in flat if isinstance(x, Tensor)]
        return result


def _difference(before: list[Tensor], after: list[Tensor]) -> float:
    """Return by how much values differ at most: 0 up to rounding, infinity for another shape."""
    largest = 0.0
    for a, b in zip(before, after, strict=True):
        if a.shape != b.shape:
            return math.inf
        same = (a == b) | (a.isnan() & b.isnan())
        apart = torch.where(same, 0.0, (a.double() - b.double()).abs()).nan_to_num(math.inf)
        difference = float(apart.max()) if apart.numel() else 0.0
        scale = max(1.0, float(a.double().abs().nan_to_num(0.0, 0.0).max())) if a.numel() else 1.0
        if difference > EQUAL_WITHIN * scale:
            largest = max(largest, difference)
    return largest
