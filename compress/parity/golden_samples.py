"""Which samples a bundle's golden vectors are of: those that reach the most of its channels.

A channel behind a ReLU that is 0 for all of them may hold anything without the golden check seeing
it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.graph.operators.operator import aten
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.certificates import GoldenReach
from edgedl.runtime.bundle.golden import GOLDEN_SAMPLES
from edgedl.runtime.task.task import Batch, Task

# Samples to choose from, and how many of them are computed at a time.
CHOICE, TOGETHER = 64, 16
# They give 0 for what is not positive.
CUT_OFF = (
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default,
    aten.hardswish.default,
)  # fmt: skip


def choose_golden(graph: fx.GraphModule, task: Task) -> tuple[Batch, GoldenReach]:
    """Return golden samples of the test split, and how many channels they reach.

    Of the first 64 samples that one is taken that reaches the most channels that none before has;
    where none reaches more, the next in order.

    Args:
        graph: the float network.
        task: of its samples.
    """
    batch = next(iter(task.batches("test", CHOICE)))
    reached = np.concatenate(
        [
            channels_reached(graph, tuple(x[i : i + TOGETHER] for x in batch.inputs))
            for i in range(0, len(batch.labels), TOGETHER)
        ]
    )
    chosen: list[int] = []
    seen = np.zeros(reached.shape[1], bool)
    while len(chosen) < min(GOLDEN_SAMPLES, len(reached)):
        gains = (reached & ~seen).sum(1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        seen |= reached[chosen[-1]]
    chosen.sort()
    golden = Batch(tuple(x[chosen] for x in batch.inputs), batch.labels[chosen])
    return golden, GoldenReach(int(seen.sum()), len(seen))


def channels_reached(graph: fx.GraphModule, inputs: tuple[Array, ...]) -> Array:
    """Return for each sample whether a channel behind a ReLU is above 0 anywhere: bool [N, C].

    Args:
        graph: the float network.
        inputs: an array [N, ...] each.
    """
    found: list[Tensor] = []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.target in CUT_OFF and isinstance(value, Tensor) and len(value) == count:
                axis = -1 if _of_features(n) else 1
                above = (value > 0).movedim(axis, 1) if value.ndim > 1 else (value > 0)[:, None]
                found.append(above.flatten(2).any(2) if above.ndim > 2 else above)
            return value

    count = len(inputs[0])
    with torch.no_grad():
        watch = Watch(graph)
        watch.extra_traceback = False
        watch.run(*in_fast_layout(graph, tuple(torch.tensor(x) for x in inputs)))
    if not found:
        return np.zeros((count, 0), bool)
    reached: Array = torch.cat(found, 1).numpy()
    return reached


def _of_features(node: fx.Node) -> bool:
    """Say whether the channels are the last axis: a linear layer is right before."""
    before = node.args[0]
    return isinstance(before, fx.Node) and before.target is aten.linear.default
