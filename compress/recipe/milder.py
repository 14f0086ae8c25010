"""The same stages with less taken away: what is tried when a budget is missed."""

from collections.abc import Sequence

import msgspec

from edgedl.compress.stage import Stage


def milder(stages: Sequence[Stage]) -> tuple[Stage, ...] | None:
    """Return the stages with every one that removes something removing less; None if none can.

    >>> from edgedl.compress.prune.prune_channels import PruneChannels
    >>> milder([PruneChannels(ratio=0.5)])[0].ratio
    0.35
    """
    found = tuple(stage.milder() or stage for stage in stages)
    # Rounded, a very small change is none.
    return None if found == tuple(stages) else found


def difference(before: Sequence[Stage], after: Sequence[Stage]) -> str:
    """Return what is set otherwise in the stages afterwards, for people."""
    changed = []
    for old, new in zip(before, after, strict=True):
        was = msgspec.structs.asdict(old)
        settings = msgspec.structs.asdict(new).items()
        changed += [f"{name} {value}" for name, value in settings if was[name] != value]
    return ", ".join(changed)
