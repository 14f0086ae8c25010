"""A technique: its settings, what it does to a network, and all that is asked about it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import torch
from torch import fx

from edgedl.compress.encodings.encodings import QuantizedPrecision
from edgedl.compress.errors import located
from edgedl.compress.estimate import Estimated, Work, estimate
from edgedl.compress.interface import check_interface
from edgedl.compress.state import AppliedStage, ModelState, Phase, Trait
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import Target
from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.errors import BadInputError, EdgedlError
from edgedl.runtime.task.task import Task

# Share of what a stage takes away that a milder one still takes away.
MILDER = 0.7

# What a stage has found besides its settings, for the history.
Found = Mapping[str, Setting]


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="stage"):
    """Base of every technique. A technique declares settings and overrides ``change``.

    The annotated fields of a subclass are its settings, with their limits; ``tag`` is its name.
    What a recipe file says is checked against them, and what Python code gives too. A setting
    ``keep_float`` holds the layers that stay float; ``samples`` and ``batch_size`` are calibration
    samples and those of one pass, unless ``work`` says otherwise.

    Attributes:
        works_on: latest phase of a network that the stage can be applied to.
        yields: phase of the network afterwards.
        gives: what the network has afterwards that others must not undo.
        undoes: what the network must not have, because the stage would undo it.
        refines: of a stage that works on quantized networks, their precisions; empty for any.
        needs: of such a stage, what errors tell the user to put before it.
        renames_layers: whether layers have other names afterwards.
    """

    works_on: ClassVar[Phase] = Phase.FLOAT_GRAPH
    yields: ClassVar[Phase] = Phase.FLOAT_GRAPH
    gives: ClassVar[frozenset[Trait]] = frozenset()
    undoes: ClassVar[frozenset[Trait]] = frozenset()
    refines: ClassVar[tuple[QuantizedPrecision, ...]] = ()
    needs: ClassVar[str] = "a stage that quantizes"
    renames_layers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            BadInputError: one has another type or lies outside its limits; it is named.
        """
        for field in msgspec.structs.fields(self):
            value: Any = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type, strict=True)
            except msgspec.ValidationError as error:
                raise BadInputError(f"{self.name}, {field.name} = {value!r}: {error}") from error

    @property
    def name(self) -> str:
        """What recipes and histories call it: its tag."""
        return stage_name(type(self))

    @property
    def quantizes_to(self) -> str:
        """Precision of the network that a stage makes which quantizes it; "" if it does not say."""
        return ""

    @property
    def calibration_samples(self) -> int | None:
        """Most samples that it finds the ranges of activations with; None if it finds none."""
        return None

    @property
    def learns_from_teachers(self) -> bool:
        """Whether the subject's teachers make a difference."""
        return False

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Return the next state, and what was found on the way; the given state stays as it is.

        Raises:
            EdgedlError: the stage cannot be applied to this network; the message says why.
        """
        raise BadInputError(
            f"the stage {self.name} does not say what it does: its class needs a method "
            "change(self, state)"
        )

    def apply(self, state: ModelState) -> ModelState:
        """Return the next state, with the stage in its history.

        Raises:
            BadInputError: it cannot stand behind those applied so far, or a user's own code raises.
            StageUndoneError: the network has other outputs afterwards, or none can be changed.
            EdgedlError: it cannot be applied to this network.
        """
        self.check_follows(state.stages)
        try:
            changed, found = self.change(state)
        except EdgedlError:
            raise
        except Exception as error:
            change = type(self).change
            if change.__module__.startswith("edgedl."):
                raise
            raise located(Path(change.__code__.co_filename), error) from error
        check_interface(state, changed)
        settings = {name: _setting(v) for name, v in msgspec.structs.asdict(self).items()}
        return self.recorded(changed, HistoryEntry(self.name, {**settings, **found}))

    def recorded(self, state: ModelState, entry: HistoryEntry) -> ModelState:
        """Return a changed state with an entry of this stage in its history."""
        history, stages = (*state.history, entry), (*state.stages, self)
        return replace(state, history=history, stages=stages)

    def check_subject(self, subject: Subject) -> None:
        """Refuse a subject that it cannot do its work with, before any stage has begun.

        Raises:
            EdgedlError: it says what the subject needs.
        """

    def check_follows(self, earlier: Sequence[AppliedStage]) -> None:
        """Refuse a place behind other stages where no network can be worked on.

        Raises:
            BadInputError: it names the stage, and what must stand before it or behind it.
        """
        for stage in earlier:
            for trait in self.undoes & stage.gives:
                raise BadInputError(
                    f"the stage {self.name} would undo {trait.words}: "
                    f"the recipe needs it before {stage.name}"
                )
        late = next((stage for stage in earlier if stage.yields > self.works_on), None)
        if late is not None and self.yields is late.yields is Phase.QUANTIZED:
            raise BadInputError(
                f"the stage {self.name} would quantize what {late.name} has quantized: "
                "the recipe needs one of them"
            )
        if late is not None:
            raise BadInputError(
                f"the stage {self.name} works on {self.works_on.words}: "
                f"the recipe needs it before {late.name}"
            )
        if self.works_on is Phase.QUANTIZED:
            self._check_quantized(earlier)

    def _check_quantized(self, earlier: Sequence[AppliedStage]) -> None:
        made = [s for s in earlier if s.works_on < s.yields is Phase.QUANTIZED]
        if not made:
            raise BadInputError(
                f"the stage {self.name} works on a quantized network: "
                f"the recipe needs {self.needs} before it"
            )
        precision = made[-1].quantizes_to
        if self.refines and precision and precision not in self.refines:
            raise BadInputError(
                f"the stage {self.name} works on {' and '.join(self.refines)} networks, that of "
                f"{made[-1].name} is {precision}: leave it out of the recipe"
            )

    def milder(self) -> "Stage | None":
        """Return the stage with less taken away, for when it cost too much; None if none can be."""
        return None

    def fit(self, targets: tuple[Target, ...], judged_on: tuple[Target, ...] = ()) -> "Stage":
        """Return the stage as the kernels of the targets need it.

        Args:
            targets: that files are made for.
            judged_on: whose files budgets are checked on.
        """
        return self

    def keeping_float(self, layers: tuple[str, ...]) -> "Stage | None":
        """Return the stage with more layers kept in float; None if it quantizes no layer."""
        if "keep_float" not in self.__struct_fields__:
            return None
        return msgspec.structs.replace(self, keep_float=(*self.float_layers, *layers))

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Layers that it keeps in float, as the user named them."""
        return tuple(getattr(self, "keep_float", ()))

    def splits(self, task: Task) -> frozenset[str]:
        """Return the splits of the task that its result depends on."""
        return frozenset({"calibration"})

    def machine(self, device: torch.device) -> str | None:
        """Return what its result depends on of the machine; None for nothing.

        Args:
            device: that networks are trained on.
        """
        return None

    def work(self, state: ModelState) -> Work | None:
        """Return how its work scales; None where a small version says nothing."""
        if "samples" not in self.__struct_fields__:
            return None
        samples, batch = (getattr(self, name, 1) for name in ("samples", "batch_size"))
        return Work(
            math.ceil(samples / batch), lambda n: msgspec.structs.replace(self, samples=n * batch)
        )

    def estimate(self, state: ModelState) -> Estimated:
        """Estimate its time on this machine, by small versions of it.

        Raises:
            EdgedlError: it cannot be applied to this network.
        """
        return estimate(self, self.work(state), state)

    @classmethod
    def rebuild(cls, graph: fx.GraphModule, entry: HistoryEntry) -> fx.GraphModule:
        """Return a network's graph with the sizes that the stage has left, as its entry says."""
        return graph


def stage_name(stage: type[Stage]) -> str:
    """Return the name that recipes and histories have for a stage: its tag."""
    return str(stage.__struct_config__.tag)


def _setting(value: Any) -> Setting:
    """Return a value as a history can hold it: others than its types as text."""
    try:
        found: Setting = msgspec.convert(value, Setting)
        return found
    except msgspec.ValidationError:
        return str(value)


def recorded_lines(entry: HistoryEntry, key: str) -> tuple[str, ...]:
    """Return the lines of text that a stage has recorded."""
    written = entry.settings[key]
    return written if isinstance(written, tuple) else ()


def refuse_together(stage: str, settings: Mapping[str, object]) -> None:
    """Refuse settings that say the same thing in two ways.

    Args:
        stage: its name.
        settings: name -> value; None is not given.

    Raises:
        BadInputError: more than one is given.
    """
    given = [name for name, value in settings.items() if value is not None]
    if len(given) > 1:
        *others, last = settings
        chosen = "both" if len(settings) == 2 else " and ".join(given)
        raise BadInputError(
            f"{stage} takes one of {', '.join(others)} and {last}, not {chosen}: "
            "leave all but one out"
        )
