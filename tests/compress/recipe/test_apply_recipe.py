"""Budgets of stages: met, met by a milder stage, or missed with what was reached until then."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from edgedl.compress import estimate
from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.apply_recipe import StageRunner, apply_recipe
from edgedl.compress.recipe.judge import Judge, Verdict
from edgedl.compress.recipe.recipe import Budget, Recipe, check_order
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.compress.targets.target import weight_bits
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.score_intervals import paired_drop
from edgedl.runtime.progress import Progress
from edgedl.runtime.task.task import ArrayTask, Samples

HIDDEN = 32


def points(count: int, seed: int) -> Samples:
    x = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    return Samples((x,), (np.arctan2(x[:, 1], x[:, 0]) > 0).astype(np.int64))


@pytest.fixture
def start() -> ModelState:
    """A network of which eight hidden units compute, and 24 copies of them add nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)).eval()
    with torch.no_grad():
        angles = torch.arange(HIDDEN) * 2 * torch.pi / 8
        net[0].weight.copy_(torch.stack([angles.cos(), angles.sin()], 1))
        net[0].bias.zero_()
        net[2].weight[1] = angles.sin()
        net[2].weight[0] = -angles.sin()
        net[2].bias.zero_()
        # Later copies matter less, so they go first.
        for unit in range(HIDDEN):
            net[0].weight[unit] *= 1.0 - 0.9 * (unit >= 8)
            net[2].weight[:, unit] *= 1.0 - 0.9 * (unit >= 8)
    task = ArrayTask(
        name="sides",
        splits={"calibration": lambda: points(200, 1), "test": lambda: points(1000, 2)},
        classes=("below", "above"),
    )
    subject = Subject("sides", net, task)
    return begin(subject)


def apply(start: ModelState, recipe: Recipe) -> tuple[ModelState, tuple[str, ...], str | None]:
    said: list[str] = []
    done = apply_recipe(
        replace(start, progress=Progress(lambda event: said.append(event.text))),
        recipe,
        StageRunner(None, None),
        lambda: Judge(start, start.subject.task),
    )
    return done.state, done.notes, done.missed


def hidden(state: ModelState) -> int:
    return next(p.shape[0] for p in state.subject.module.parameters())


PRUNE = PruneChannels(ratio=0.75, multiple=1, importance="l2")


@pytest.mark.slow
def test_a_budget_that_is_met_stands_in_the_history(start: ModelState) -> None:
    state, notes, missed = apply(start, Recipe("", (PRUNE,), {0: Budget(2.0)}))
    assert (notes, missed) == ((), None)
    settings = state.history[-1].settings
    assert settings["budget_max_drop_pp"] == 2.0
    assert settings["drop_samples"] == 1000
    scores = [
        start.subject.task.score((m(torch.from_numpy(x[0])).detach().numpy(),), labels)
        for m in (start.subject.module, state.subject.module)
        for x, labels in [points(1000, 2)]
    ]
    assert settings["drop_pp"] == pytest.approx(100 * paired_drop(*scores).value)


@pytest.mark.slow
def test_a_missed_budget_is_tried_milder_until_it_is_met(start: ModelState) -> None:
    hard = PruneChannels(ratio=0.97, multiple=1, importance="l2")
    state, notes, missed = apply(start, Recipe("", (hard,), {0: Budget(2.0)}))
    assert missed is None
    assert len(notes) == 1
    assert "tried again with ratio 0.679" in notes[0]
    assert state.history[-1].settings["ratio"] == 0.679
    assert hidden(state) == 10


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_leaves_what_was_reached(start: ModelState) -> None:
    recipe = Recipe(
        "", (PRUNE, QuantizeStatic(samples=64), FineTune()), {0: Budget(2.0), 1: Budget(0.0)}
    )
    state, notes, missed = apply(start, recipe)
    assert missed is not None
    assert "no stage has milder settings" in missed
    assert notes == (missed,)
    assert [entry.stage for entry in state.history] == ["prune_channels"]
    assert hidden(state) == 8


@pytest.mark.slow
def test_retries_are_counted(start: ModelState) -> None:
    hard = PruneChannels(ratio=0.97, multiple=1, importance="l2")
    state, notes, missed = apply(start, Recipe("", (hard,), {0: Budget(0.0, retries=1)}))
    assert state.history == ()
    assert len(notes) == 2
    assert missed == notes[-1]
    assert "no retries are left" in missed


@pytest.mark.slow
def test_a_milder_attempt_that_would_remove_nothing_ends_the_retries(start: ModelState) -> None:
    coarse = PruneChannels(ratio=0.75, multiple=16, importance="l2")
    state, notes, missed = apply(start, Recipe("", (coarse,), {0: Budget(0.0, retries=9)}))
    assert state.history == ()
    assert "tried again with ratio" in notes[0]
    assert missed == notes[-1]
    assert "milder settings remove nothing: nothing would be removed in multiples of 16" in missed


class Counting(Stage, frozen=True):
    """Something that takes long, behind what is milder every time."""

    works_on = yields = Phase.TRAINED
    seen: list

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        self.seen.append(state)
        return state, {}


@pytest.mark.slow
def test_a_milder_attempt_with_the_same_widths_is_not_one(start: ModelState) -> None:
    coarse = PruneChannels(ratio=0.75, multiple=16, importance="l2")
    long = Counting([])
    recipe = Recipe("", (coarse, long), {1: Budget(0.0, retries=1)})
    runner = StageRunner(None, None)
    done = apply_recipe(start, recipe, runner, lambda: Judge(start, start.subject.task))
    assert [hidden(state) for state in long.seen] == [16]
    assert done.missed is not None
    assert any("gives the same network" in note for note in done.notes)
    assert "milder settings remove nothing" in done.missed


@pytest.mark.slow
@pytest.mark.parametrize(
    "coarse", [Factorize(energy=0.5, multiple=1), ClusterWeights(bits=1)], ids=["rank", "values"]
)
def test_retries_end_where_a_stage_has_nothing_to_take(
    start: ModelState, coarse: Factorize | ClusterWeights
) -> None:
    state, notes, missed = apply(start, Recipe("", (coarse,), {0: Budget(0.0, retries=50)}))
    assert state.history == ()
    assert missed is not None
    assert missed == notes[-1]


@pytest.mark.parametrize("number", [-1, 1])
def test_a_budget_of_no_stage_is_refused(number: int) -> None:
    with pytest.raises(BadInputError, match=f"a budget is of stage {number}, the recipe has 1"):
        check_order(Recipe("", (QuantizeStatic(),), {number: Budget(1.0)}))


@pytest.mark.slow
def test_every_stage_since_the_last_budget_begins_anew(start: ModelState) -> None:
    hard = PruneChannels(ratio=0.97, multiple=1, importance="l2")
    stages = (hard, QuantizeStatic(samples=64, weight_bits=weight_bits((ORT,))))
    state, notes, missed = apply(start, Recipe("", stages, {1: Budget(3.0)}))
    assert (len(notes), missed) == (1, None)
    assert [e.stage for e in state.history] == ["prune_channels", "quantize_static"]
    assert state.quantized is not None


class Own(Stage, frozen=True):
    """A stage of a user's."""

    works_on = yields = Phase.TRAINED

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        return PRUNE.change(state)


@pytest.mark.slow
def test_a_users_stage_may_stand_before_a_missed_budget(start: ModelState) -> None:
    hard = PruneChannels(ratio=0.9, multiple=1, importance="l2")
    stages = (Own(), hard)
    _, notes, missed = apply(start, Recipe("", stages, {1: Budget(0.0, retries=1)}))
    assert missed is not None
    assert "tried again with ratio 0.63" in notes[0]


@pytest.mark.parametrize("stage", [QuantizeFp8(64), QuantizeStatic(64, activation_bits=16)])
def test_a_budget_is_not_checked_on_a_file_that_cannot_run(start: ModelState, stage: Stage) -> None:
    with pytest.raises(BadInputError, match="cannot run this precision"):
        apply(start, Recipe("", (stage,), {0: Budget(5.0)}))


@pytest.mark.slow
def test_the_bundle_of_a_missed_budget_is_whole(start: ModelState, tmp_path: Path) -> None:
    recipe = Recipe("", (PRUNE, QuantizeStatic(samples=64)), {1: Budget(0.0)})
    with pytest.raises(BadInputError, match="give compress\\(\\) the selection"):
        compress(start.subject, recipe, (ORT,), tmp_path)
    made = compress(start.subject, recipe, (ORT,), tmp_path, selection=start.subject.task)
    assert made.missed is not None
    assert made.missed in made.warnings
    assert [a.name for a in made.bundle.manifest.artifacts] == ["ort-float32", "ort-float16"]


def test_an_estimate_counts_every_batch(start: ModelState, monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed = 0.0

    def slowly(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        nonlocal elapsed
        elapsed += 0.1
        return x

    # A clock that only the augmentation moves: other work on the machine does not count.
    monkeypatch.setattr(estimate, "time", SimpleNamespace(monotonic=lambda: elapsed))

    slow = replace(start, subject=replace(start.subject, augment=slowly))
    found = FineTune(epochs=400, samples=200, batch_size=20).estimate(slow).seconds
    # Of the 200 samples 20 are set aside: 9 batches an epoch, 0.1 s each.
    assert found == pytest.approx(400 * 9 * 0.1)
    quantized = QuantizeStatic(samples=64).estimate(start)
    assert quantized.state.quantized is not None
    assert MixPrecision().estimate(quantized.state).seconds is None


def test_a_budget_is_not_met_by_too_few_samples_without_an_interval() -> None:
    baseline = np.full(4, 0.9)
    few = Verdict(paired_drop(baseline, baseline), Budget(2.0), 4, 16)
    assert not few.met
    assert str(few) == (
        "+0.00 points lost on 4 samples, budget 2, inconclusive: about 16 more needed"
    )
    one = Verdict(paired_drop(np.ones(1), np.ones(1)), Budget(100.0), 1)
    assert one.met
    assert "points lost on 1 sample, budget 100" in str(one)
