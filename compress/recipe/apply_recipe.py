"""Apply a recipe's stages: reuse what is kept, and try milder where a budget is missed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import torch

from edgedl.compress.recipe.judge import Judge, Verdict
from edgedl.compress.recipe.milder import difference, milder
from edgedl.compress.recipe.recipe import Budget, Recipe
from edgedl.compress.recipe.store.ingredients import Provenance, Unknown, state_digest
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, NothingRemovedError, StageUndoneError
from edgedl.runtime.errors import BadInputError


@dataclass(frozen=True)
class Applied:
    """Where a recipe led.

    Attributes:
        state: after the last stage; where a budget was missed, after the last one that was met.
        notes: every attempt that missed a budget, and what was tried instead.
        missed: the budget that could not be met, None if all were.
    """

    state: ModelState
    notes: tuple[str, ...] = ()
    missed: str | None = None


class StageRunner:
    """Applies stages one by one, each through the store where there is one."""

    def __init__(self, store: StageStore | None, provenance: Provenance | None) -> None:
        """Take a store with what its keys are made of, or neither."""
        self._store, self._provenance = store, provenance

    def run(self, stages: Sequence[Stage], state: ModelState) -> ModelState:
        """Return the state after some stages, without those that would change it wrongly.

        Raises:
            EdgedlError: a stage cannot be applied.
        """
        for stage in stages:
            state.progress.step(stage.name)
            # What a stage draws does not depend on which stages before it were reused.
            torch.manual_seed(torch.initial_seed())
            try:
                state = self._applied(stage, state)
            except StageUndoneError as error:
                state = _left_out(state, stage, str(error))
            except BadInputError as error:
                if not _needs_what_is_left_out(stage, state):
                    raise
                state = _left_out(state, stage, str(error))
        return state

    def _applied(self, stage: Stage, state: ModelState) -> ModelState:
        if self._store is None or self._provenance is None:
            return stage.apply(state)
        ingredients = self._provenance.ingredients(stage, state)
        if isinstance(ingredients, Unknown):
            state.progress.note(str(ingredients))
            return stage.apply(state)
        return self._store.apply(stage, state, ingredients)


def _left_out(state: ModelState, stage: Stage, reason: str) -> ModelState:
    note = f"the stage {stage.name} is skipped: {reason}"
    state.progress.note(note)
    return replace(state, undone=(*state.undone, note))


def _needs_what_is_left_out(stage: Stage, state: ModelState) -> bool:
    """Say whether a stage cannot follow because one before it was left out."""
    try:
        stage.check_follows(state.stages)
    except BadInputError:
        return bool(state.undone)
    return False


def apply_recipe(
    state: ModelState, recipe: Recipe, runner: StageRunner, judge: Callable[[], Judge]
) -> Applied:
    """Return the state after a recipe's stages.

    Stages up to one with a budget are one group. Where it is missed, the group begins anew with
    less taken away, as often as the budget says.

    Args:
        state: of the network that the recipe begins with.
        recipe: what to do; its stages are in a possible order.
        runner: applies a stage.
        judge: called once, where there is a budget.

    Raises:
        EdgedlError: a stage cannot be applied.
    """
    first, notes = 0, []
    for stage in recipe.stages:
        stage.check_subject(state.subject)
    judging = judge() if recipe.budgets else None
    for number in sorted({*recipe.budgets, len(recipe.stages) - 1}):
        group = recipe.stages[first : number + 1]
        first = number + 1
        budget = recipe.budgets.get(number)
        if judging is None or budget is None:
            state = runner.run(group, state)
            continue
        found = _within(group, budget, state, runner, judging)
        notes += found.notes
        if found.state is None:
            return Applied(state, tuple(notes), found.notes[-1])
        state = found.state
    return Applied(state, tuple(notes))


@dataclass(frozen=True)
class _Attempts:
    """What became of a group of stages; ``state`` is None where its budget was missed."""

    notes: list[str]
    state: ModelState | None = None


def _within(
    group: tuple[Stage, ...],
    budget: Budget,
    start: ModelState,
    runner: StageRunner,
    judge: Judge,
) -> _Attempts:
    """Try a group of stages, ever milder, until its budget is met."""
    notes: list[str] = []
    name, number = group[-1].name, _milder_until(group)
    left, before = budget.retries, ""
    while True:
        try:
            state = runner.run(group[:number], start)
        except NothingRemovedError as error:
            if not notes:
                raise
            notes.append(f"milder settings remove nothing: {error}")
            break
        less = milder(group)
        if state_digest(state) == before:
            # Widths and ranks come in multiples.
            tried = "gives the same network"
        else:
            before = state_digest(state)
            state = runner.run(group[number:], state)
            verdict = judge.verdict(state, budget)
            start.progress.note(str(verdict))
            if verdict.met:
                return _Attempts(notes, _with_verdict(state, verdict))
            tried, left = str(verdict), left - 1
        if left < 0 or less is None:
            reason = "no stage has milder settings"
            if left < 0:
                reason = "no retries are left" if budget.retries else "it has no retries"
            notes.append(f"the budget of {name} is missed: {tried}; {reason}")
            break
        notes.append(f"{name}: {tried}; tried again with {difference(group, less)}")
        start.progress.note(notes[-1])
        group = less
    return _Attempts(notes)


def _milder_until(group: tuple[Stage, ...]) -> int:
    """Return how many stages of a group it takes until none behind them can be milder."""
    less = milder(group) or group
    changed = [n for n, (a, b) in enumerate(zip(group, less, strict=True), 1) if a != b]
    return max(changed, default=len(group))


def _with_verdict(state: ModelState, verdict: Verdict) -> ModelState:
    """Return the state with what was measured in the last entry of its history."""
    if not state.history:
        return state
    drop, last = verdict.drop, state.history[-1]
    settings = {
        **last.settings,
        "budget_max_drop_pp": verdict.budget.max_drop_pp,
        "budget_confidence": verdict.budget.confidence,
        "drop_pp": 100 * drop.value,
        "drop_ci": (f"{100 * drop.lo:.4f}", f"{100 * drop.hi:.4f}"),
        "drop_samples": verdict.samples,
    }
    entry = msgspec.structs.replace(last, settings=settings)
    return replace(state, history=(*state.history[:-1], entry))
