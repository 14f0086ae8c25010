"""The same stages with less taken away: what is tried when a budget is missed."""

from collections.abc import Sequence

import msgspec

from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.factorize.factorize import ENERGY, Factorize
from edgedl.compress.prune.prune_blocks import BLOCKS, PruneBlocks
from edgedl.compress.prune.prune_channels import RATIO, PruneChannels
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.stages import AnyStage
from edgedl.compress.sparsify.sparsify import Sparsify

# Share of what a stage takes away that is still taken away in the next attempt.
STEP = 0.7
MOST_BITS = 8


def milder(stages: Sequence[AnyStage]) -> tuple[AnyStage, ...] | None:
    """Return the stages with every one that removes something removing less; None if none can.

    >>> milder([PruneChannels(ratio=0.5)])[0].ratio
    0.35
    """
    found = tuple(_milder(stage) or stage for stage in stages)
    # Rounded, a very small change is none.
    return None if found == tuple(stages) else found


def _milder(stage: AnyStage) -> AnyStage | None:
    replace = msgspec.structs.replace
    if isinstance(stage, PruneChannels | PruneBlocks | Factorize) and stage.speedup is not None:
        return replace(stage, speedup=round(1 + (stage.speedup - 1) * STEP, 4))
    if isinstance(stage, PruneChannels):
        return replace(stage, ratio=round((stage.ratio or RATIO) * STEP, 4))
    if isinstance(stage, PruneBlocks):
        blocks = stage.blocks or BLOCKS
        return replace(stage, blocks=blocks - 1) if blocks > 1 else None
    if isinstance(stage, Sparsify) and stage.pattern != "2:4":
        return replace(stage, sparsity=round(stage.sparsity * STEP, 4))
    if isinstance(stage, Factorize):
        if stage.ratio is not None:
            return replace(stage, ratio=round(stage.ratio * STEP, 4))
        lost = 1 - (stage.energy or ENERGY)
        return replace(stage, energy=round(1 - lost * STEP, 6))
    if isinstance(stage, ClusterWeights) and stage.bits < MOST_BITS:
        return replace(stage, bits=stage.bits + 1)
    if isinstance(stage, QuantizeWeights) and stage.bits < MOST_BITS:
        return replace(stage, bits=MOST_BITS)
    return None


def difference(before: Sequence[AnyStage], after: Sequence[AnyStage]) -> str:
    """Return what is set otherwise in the stages afterwards, for people.

    >>> difference([PruneChannels(ratio=0.5)], [PruneChannels(ratio=0.35)])
    'ratio 0.35'
    """
    changed = []
    for old, new in zip(before, after, strict=True):
        if new is old:
            continue
        was = msgspec.structs.asdict(old)
        settings = msgspec.structs.asdict(new).items()
        changed += [f"{name} {value}" for name, value in settings if was[name] != value]
    return ", ".join(changed)
