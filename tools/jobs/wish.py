"""What the command line asks for, in its own words."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edgedl.compress.recipe.recipe import DEFAULT, Recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.recipe.stages import STAGES
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import BadInputError
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.jobs.teachers import find_teacher


@dataclass(frozen=True)
class Wish:
    """What the user wants compressed, and how, as the command line says it.

    Attributes:
        subject: a reference model's name, or ``file.py:function``.
        weights: a safetensors file instead of the weights that ship with a reference model.
        recipe: names or files of recipes, joined by "+"; "default" is what suits the network.
        keep_float: layers that stay float32.
        teachers: who teaches where a stage distils: subjects or bundles.
        targets: runtimes.
        seed: of all that is random.
        device: where stages train; None for the subject's own.
        data: by name, where the subject is a module without any.
    """

    subject: str
    weights: Path | None
    recipe: str
    keep_float: tuple[str, ...]
    teachers: tuple[str, ...]
    targets: tuple[Target, ...]
    seed: int
    device: torch.device | None = None
    data: str | None = None

    def job(self) -> Job:
        """Return the job in objects; names and files are looked for before anything is loaded.

        Raises:
            BadInputError: there is none of a name, or a user's code fails.
        """
        recipe = self._recipe()
        self._check_teachers(recipe)
        named = self.subject if self.data is None else ""
        return Job(self._subject(), self.targets, recipe, self.keep_float, named)

    def _recipe(self) -> Recipe | None:
        """Return the recipe; None for the one that suits the network.

        Raises:
            BadInputError: there is none of that name, or a file is wrong.
        """
        return None if self.recipe == DEFAULT else load_recipe(self.recipe)

    def _subject(self) -> Subject:
        """Return the subject, with its teachers.

        Raises:
            BadInputError: there is none of that name, or its code fails.
        """
        torch.manual_seed(self.seed)
        subject = find_subject(self.subject, self.weights, self.data)
        if self.device is not None:
            subject = replace(subject, device=self.device)
        if not self.teachers:
            return subject
        return replace(
            subject,
            teachers=tuple(find_teacher(name, subject.task.classes) for name in self.teachers),
        )

    def _check_teachers(self, recipe: Recipe | None) -> None:
        """Make sure that a stage uses the teachers, if any are named; no default recipe does.

        Raises:
            BadInputError: no stage does.
        """
        stages = () if recipe is None else recipe.stages
        if self.teachers and not any(stage.learns_from_teachers for stage in stages):
            able = [name for name, stage in STAGES.items() if stage().learns_from_teachers]
            raise BadInputError(
                f"the recipe {self.recipe} does not use the teacher {self.teachers[0]}: it has "
                f"no stage {' or '.join(able)} with distil above 0"
            )
