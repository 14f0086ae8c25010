"""What a run would do: its stages, what is kept of them already, and how long the others take."""

from dataclasses import dataclass, replace

import msgspec

from edgedl.compress.estimate import Estimated
from edgedl.compress.graph.trace import trace
from edgedl.compress.recipe.default_recipe import fitting_recipe
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.recipe.store.ingredients import Ingredients, Provenance
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, StageUndoneError
from edgedl.compress.subject.check_subject import check_subject
from edgedl.compress.subject.steps import by_steps
from edgedl.compress.toolchain import toolchain
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.wording import about
from edgedl.tools.jobs.job import Job


@dataclass(frozen=True)
class PlannedStage:
    """One line of a plan.

    Attributes:
        name: of the stage.
        settings: those that differ from the defaults.
        seconds: what it will take on this machine; None where that is not known.
        kept: key of a result that will be reused, None if the stage will be applied.
        left_out: why the stage cannot be applied to the network, None if it can.
    """

    name: str
    settings: str
    seconds: float | None
    kept: str | None
    left_out: str | None = None

    def __str__(self) -> str:
        """Return the line."""
        if self.left_out is not None:
            return f"{self.name} {self.settings}: skipped, {self.left_out}"
        if self.kept is not None:
            return f"{self.name} {self.settings}: cached, {self.kept}"
        time = "time unknown before it runs" if self.seconds is None else about(self.seconds)
        return f"{self.name} {self.settings}: {time}"


def plan(job: Job, store: StageStore | None, progress: Progress) -> list[PlannedStage]:
    """Return the stages of a run, estimated by small versions of them; nothing is written.

    Args:
        job: what the run shall do.
        store: where results are kept; None for none.
        progress: says which recipe was taken, and where results are damaged.

    Raises:
        EdgedlError: as the run itself would, for what can be seen before it.
    """
    given, subject = job.recipe, by_steps(job.subject)
    for note in check_subject(subject):
        progress.note(note)
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    recipe = fitting_recipe(graph, given, job.targets, job.keep_float, progress)
    state = ModelState(subject, graph, progress=progress)
    known = None if store is None else Provenance(state, toolchain())
    for stage in recipe.stages:
        stage.check_subject(subject)
    lines = []
    for number, stage in enumerate(recipe.stages):
        kept = None
        if store is not None and known is not None:
            ingredients = known.ingredients(stage, state)
            kept = ingredients.key() if isinstance(ingredients, Ingredients) else None
        there = store.find(kept, stage, state) if store is not None and kept is not None else None
        settings = _settings(stage, recipe, number)
        try:
            found = Estimated(0.0, there, whole=True) if there else _quiet_estimate(stage, state)
        except StageUndoneError as error:
            lines.append(PlannedStage(stage.name, settings, 0.0, None, str(error)))
            continue
        if not found.whole:
            # What follows depends on a result that is not there yet.
            known = None
        state = found.state
        lines.append(PlannedStage(stage.name, settings, found.seconds, kept if there else None))
    return lines


def _quiet_estimate(stage: Stage, state: ModelState) -> Estimated:
    """Return the estimate of a stage; the messages of its trial runs are not shown."""
    found = stage.estimate(replace(state, progress=SILENT))
    return replace(found, state=replace(found.state, progress=state.progress))


def total(lines: list[PlannedStage]) -> str:
    """Return what all stages take together, for people."""
    to_do = [line for line in lines if line.kept is None]
    known = [line.seconds for line in to_do if line.seconds is not None]
    unknown = len(to_do) - len(known)
    more = f", plus {unknown} of unknown time" if unknown else ""
    return f"{len(lines)} stages, {len(lines) - len(to_do)} cached: {about(sum(known))}{more}"


def _settings(stage: Stage, recipe: Recipe, number: int) -> str:
    """Return the settings that differ from the defaults, and the budget."""
    given = [(field, getattr(stage, field.name)) for field in msgspec.structs.fields(stage)]
    words = [f"{field.name}={value}" for field, value in given if value != field.default]
    if number in recipe.budgets:
        words.append(f"within {recipe.budgets[number].max_drop_pp:g} points")
    return f"({', '.join(words)})" if words else "(defaults)"
