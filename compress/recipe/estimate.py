"""How long the stages of a recipe take, from small versions of them that are timed here and now."""

import math
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import aligned
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.prune.speed import NetworkTimer
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.recipe.stages import AnyStage
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import load_target
from edgedl.runtime.precision import precision_named
from edgedl.runtime.task.task import training_split

# Units of work in the two small versions; what the second takes longer is the price of the rest.
FEW, MORE = 2, 6
COUNTING_BATCH = 250


@dataclass(frozen=True)
class Estimated:
    """What a stage will take, and a state to estimate the next one from.

    Attributes:
        seconds: None where a small version says nothing.
        state: after the small version.
        whole: whether that was the stage itself.
    """

    seconds: float | None
    state: ModelState
    whole: bool = False


def estimate(stage: AnyStage, state: ModelState) -> Estimated:
    """Estimate a stage on this machine, other work on it included.

    Networks are pruned in full before the next stage is estimated only where that needs no timing,
    so training after a speed-up is estimated too long.

    Raises:
        EdgedlError: the stage cannot be applied to this network.
    """
    if isinstance(stage, MixPrecision):
        return Estimated(None, state)
    if isinstance(stage, PruneChannels) and stage.speedup is not None:
        return Estimated(_seconds_of_search(stage, state), state)
    if isinstance(stage, PruneBlocks | Factorize) and stage.speedup is not None:
        return Estimated(None, state)
    units, small = _smaller(stage, state)
    if small is None:
        seconds, after = _timed(stage, state)
        return Estimated(seconds, after, whole=True)
    few, _ = _timed(small(min(FEW, units)), state)
    larger = small(min(MORE, units))
    more, after = _timed(larger, state)
    price = max(0.0, more - few) / max(1, min(MORE, units) - min(FEW, units))
    return Estimated(more + price * max(0, units - MORE), after, whole=larger == stage)


def _smaller(stage: Any, state: ModelState) -> tuple[int, Any]:
    """Return how many units of work a stage has, and how to make it one of fewer; else None."""
    fields = {field.name for field in msgspec.structs.fields(stage)}
    batch = getattr(stage, "batch_size", 1)
    if "epochs" in fields:
        task = state.subject.task
        count = sum(len(b.labels) for b in task.batches(training_split(task), COUNTING_BATCH))
        units = stage.epochs * max(1, min(stage.samples, count) // batch)
        return units, lambda n: msgspec.structs.replace(stage, epochs=1, samples=n * batch)
    if "iterations" in fields:
        return stage.iterations, lambda n: msgspec.structs.replace(stage, iterations=n)
    if "samples" in fields and not isinstance(stage, PruneChannels):
        units = math.ceil(stage.samples / batch)
        return units, lambda n: msgspec.structs.replace(stage, samples=n * batch)
    return 1, None


def _timed(stage: AnyStage, state: ModelState) -> tuple[float, ModelState]:
    start = time.monotonic()
    # As in a run, so that what is kept of the stages behind is found.
    torch.manual_seed(torch.initial_seed())
    after = stage.apply(state)
    return time.monotonic() - start, after


def _seconds_of_search(stage: PruneChannels, state: ModelState) -> float:
    """Return the seconds of timing a network at many widths, from timing it at one."""
    subject = state.subject
    axes = TensorAxes(export_graph(subject.module, subject.example_inputs()))
    groups = channel_groups(axes)
    start = time.monotonic()
    timer = NetworkTimer(state, axes, load_target(stage.runtime), precision_named(stage.precision))
    multiple = stage.multiple or load_target(stage.runtime).channel_multiple
    half = {g.axis: aligned(g.size / 2, g.size, g.step(multiple)) for g in groups}
    timer.ratios({"half": half})
    # Every group once, then bisection over the blocks of channels.
    blocks = sum(g.size // g.step(multiple) for g in groups)
    return (time.monotonic() - start) * (len(groups) + math.log2(max(2, blocks))) / 2
