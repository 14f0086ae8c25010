"""Recipes: what is done to a network, in which order, and how much accuracy it may cost."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from edgedl.compress.recipe.shipped_recipes import DEFAULT as DEFAULT
from edgedl.compress.recipe.stages import STAGES
from edgedl.compress.stage import Stage
from edgedl.compress.targets.target import REFERENCE, Target
from edgedl.runtime.errors import BadInputError


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much accuracy the stages up to this one may cost.

    Attributes:
        max_drop_pp: points below the network that the recipe begins with, on samples that are not
            those of the final score; the upper end of the paired interval counts.
        confidence: of that interval.
        retries: how often the stages since the last budget are tried milder.
    """

    max_drop_pp: Annotated[float, Meta(ge=0, le=100)]
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95
    retries: Annotated[int, Meta(ge=0)] = 2


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do to a model.

    Attributes:
        description: one line for people.
        stages: applied in this order, edgedl's own or a user's; none means that only the precision
            of the files differs.
        budgets: position of a stage, from 0 -> what it and those before it may cost. In a YAML
            file the key ``budget`` of the stage.
    """

    description: str
    stages: tuple[Stage, ...] = ()
    budgets: dict[int, Budget] = {}

    def __post_init__(self) -> None:
        """Refuse what is no stage.

        Raises:
            BadInputError: something is none; it is named.
        """
        for stage in self.stages:
            if not isinstance(stage, Stage):
                kind = stage if isinstance(stage, type) else type(stage)
                raise BadInputError(
                    f"{kind.__name__} is not a stage: give an object of a subclass of edgedl.Stage"
                )


def check_order(recipe: Recipe) -> None:
    """Refuse an order of stages in which no network can be worked on.

    Raises:
        BadInputError: it names the stage, and what must stand before it or behind it; or a budget
            is of a stage that there is not.
    """
    outside = [n for n in recipe.budgets if not 0 <= n < len(recipe.stages)]
    if outside:
        raise BadInputError(
            f"a budget is of stage {outside[0]}, the recipe has {len(recipe.stages)}, from 0"
        )
    for number, stage in enumerate(recipe.stages):
        stage.check_follows(recipe.stages[:number])


def joined(recipes: Sequence[Recipe]) -> Recipe:
    """Return one recipe that does what several do, one after another."""
    stages: tuple[Stage, ...] = ()
    budgets: dict[int, Budget] = {}
    for recipe in recipes:
        budgets |= {len(stages) + number: b for number, b in recipe.budgets.items()}
        stages += recipe.stages
    return Recipe(" Then: ".join(r.description for r in recipes), stages, budgets)


def keep_float(recipe: Recipe, layers: tuple[str, ...]) -> Recipe:
    """Return the recipe with more layers kept in float where it quantizes.

    Raises:
        BadInputError: layers are named, but no stage of the recipe quantizes.
    """
    if not layers:
        return recipe
    kept = tuple(stage.keeping_float(layers) for stage in recipe.stages)
    if not any(kept):
        able = [name for name, stage in STAGES.items() if stage().keeping_float(()) is not None]
        raise BadInputError(
            f"cannot keep '{layers[0]}' in float: the recipe has no stage "
            f"{', '.join(able[:-1])} or {able[-1]}"
        )
    stages = tuple(new or old for new, old in zip(kept, recipe.stages, strict=True))
    return msgspec.structs.replace(recipe, stages=stages)


def fit(recipe: Recipe, targets: tuple[Target, ...]) -> Recipe:
    """Return the recipe with stages as the kernels of all targets need them.

    Budgets are checked on ONNX Runtime.
    """
    judged_on = (REFERENCE,) if recipe.budgets else ()
    stages = tuple(stage.fit(targets, judged_on) for stage in recipe.stages)
    return msgspec.structs.replace(recipe, stages=stages)
