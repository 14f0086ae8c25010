"""Recipes: what is done to a network, in which order, and how much accuracy it may cost."""

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.smooth import Smooth
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.stages import STAGES, AnyStage, stage_name
from edgedl.compress.stage import Refinement
from edgedl.compress.targets.target import REFERENCE, Target, weight_bits
from edgedl.runtime.errors import BadInputError

DEFAULT = "default"
ACTIVATION_BITS = 8

# What stages work on, in the order in which a network gets there.
KINDS = ("the network as it was trained", "the float graph", "the float network", "integers")
_REWRITERS = (Equalize, Smooth, ClusterWeights)
_QUANTIZERS = (QuantizeStatic, QuantizeFp8, QuantizeWeights, QuantizeDynamic)
# What a stage does -> stages that must not follow it.
_UNDONE_BY = {
    "sparsify": ("prune_channels", "prune_blocks", "factorize"),
    "cluster_weights": ("equalize", "smooth"),
}
_TRAINED = ("prune_channels", "prune_blocks", "factorize", "sparsify", "fine_tune")


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
        stages: applied in this order; none means that only the precision of the files differs.
        budgets: position of a stage, from 0 -> what it and those before it may cost. In a YAML
            file the key ``budget`` of the stage.
    """

    description: str
    stages: tuple[AnyStage, ...] = ()
    budgets: dict[int, Budget] = {}


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
    reached, latest, precision = 0, "", ""
    names = [stage_name(type(stage)) for stage in recipe.stages]
    for number, stage in enumerate(recipe.stages):
        for earlier, undoes in _UNDONE_BY.items():
            if names[number] in undoes and earlier in names[:number]:
                raise BadInputError(
                    f"the stage {names[number]} would undo what {earlier} does: the recipe needs "
                    "it before that"
                )
        name = stage_name(type(stage))
        kind = _kind(stage) if name in STAGES else reached
        if kind < reached:
            raise BadInputError(
                f"the stage {name} works on {KINDS[kind]}: the recipe needs it before {latest}"
            )
        if isinstance(stage, _QUANTIZERS) and reached == kind:
            raise BadInputError(
                f"the stage {name} would quantize what {latest} has quantized: the recipe needs "
                "one of them"
            )
        if kind == len(KINDS) - 1 and reached < kind - 1:
            raise BadInputError(
                f"the stage {name} works on a quantized network: "
                "the recipe needs quantize_static before it"
            )
        if isinstance(stage, _QUANTIZERS):
            precision = _precision(stage)
        if isinstance(stage, Refinement) and precision not in stage.works_on:
            raise BadInputError(
                f"the stage {name} works on {' and '.join(stage.works_on)} networks, that of "
                f"{latest} is {precision}: leave it out of the recipe"
            )
        reached, latest = kind, name


def _precision(stage: AnyStage) -> str:
    """Return the precision of the network that a quantizer makes."""
    if isinstance(stage, QuantizeStatic):
        return "int8" if stage.activation_bits == ACTIVATION_BITS else "int8_int16"
    return "fp8" if isinstance(stage, QuantizeFp8) else "weight-only or dynamic"


def _kind(stage: AnyStage) -> int:
    """Return the position in ``KINDS`` of what a stage works on."""
    if stage_name(type(stage)) in _TRAINED:
        return 0
    if isinstance(stage, _REWRITERS):
        return 1
    return 2 if isinstance(stage, _QUANTIZERS) else 3


def joined(recipes: Sequence[Recipe]) -> Recipe:
    """Return one recipe that does what several do, one after another."""
    stages: tuple[AnyStage, ...] = ()
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

    def keep(stage: AnyStage) -> AnyStage:
        if isinstance(stage, QuantizeStatic | QuantizeFp8 | QuantizeWeights):
            return msgspec.structs.replace(stage, keep_float=(*stage.keep_float, *layers))
        return stage

    kept = _with_stages(recipe, keep)
    if kept == recipe:
        raise BadInputError(
            f"there is nothing to keep '{layers[0]}' from: the recipe has no stage "
            "quantize_static, quantize_fp8 or quantize_weights"
        )
    return kept


def fit_weights(recipe: Recipe, targets: Sequence[Target]) -> Recipe:
    """Return the recipe with no more weight bits than the kernels of every target can add up.

    The table is one for all targets, so the narrowest decides; budgets are checked on ONNX Runtime.
    """
    bits = weight_bits((*targets, REFERENCE) if recipe.budgets else targets)

    def fit(stage: AnyStage) -> AnyStage:
        if isinstance(stage, QuantizeStatic) and stage.activation_bits > ACTIVATION_BITS:
            # Only TFLite has such kernels, and they do not saturate.
            return stage
        if isinstance(stage, QuantizeStatic | QuantizeDynamic):
            return msgspec.structs.replace(stage, weight_bits=min(bits, stage.weight_bits))
        return stage

    return _with_stages(recipe, fit)


def fit_channels(recipe: Recipe, targets: Sequence[Target]) -> Recipe:
    """Return the recipe with widths that the kernels of every target like.

    Where a recipe says nothing, widths by latency are multiples of what the timed runtime likes,
    others of the most that any target likes.
    """
    most = max(target.channel_multiple for target in targets)

    def fit(stage: AnyStage) -> AnyStage:
        if isinstance(stage, PruneChannels) and stage.multiple is None and stage.speedup is None:
            return msgspec.structs.replace(stage, multiple=most)
        return stage

    return _with_stages(recipe, fit)


def _with_stages(recipe: Recipe, change: Callable[[AnyStage], AnyStage]) -> Recipe:
    """Return the recipe with every stage changed."""
    stages = tuple(change(stage) for stage in recipe.stages)
    return recipe if stages == recipe.stages else msgspec.structs.replace(recipe, stages=stages)
