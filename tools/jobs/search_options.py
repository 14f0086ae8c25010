"""Which recipes a budget is looked for with, and why some of them need not be tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgedl.compress.recipe.recipe import DEFAULT, Recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.precision import FLOAT32, INT8
from edgedl.runtime.task.task import TRAIN, with_splits
from edgedl.tools.jobs.tried_file import TriedFile

# Weights that fit in the caches of a processor are not read faster as integers, and files with
# integer weights alone compute in float.
CACHED_BYTES = 32e6
PRUNED = "pruned_w8c_a8"
# Latency now over latency afterwards: the first one asked for, then more or less of it.
SPEEDUP, MORE_SPEEDUP, LESS_SPEEDUP = 1.5, 2.0, 1.25
# Of progress: the default recipe, five others and two pruned networks are tried, and three of
# those, which train, are estimated first.
MOST_STEPS = 11


@dataclass(frozen=True, eq=False)
class Option:
    """A recipe that may have a faster file within the budget.

    Attributes:
        name: what tables call it.
        recipe: None is the one that suits the network.
        integers: of one that quantizes as static int8 does: "all" layers that have kernels compute
            in integers, so that its files are as fast as those; or "some", so that they are not
            faster. "" for others.
        weights_only: whether its files compute in float.
        trains: whether it takes the time of a training.
        speedup: of one that prunes: latency now over latency afterwards. None for others.
    """

    name: str
    recipe: Recipe | None = None
    integers: str = ""
    weights_only: bool = False
    trains: bool = False
    speedup: float | None = None


def options(default: str) -> list[Option]:
    """Return what to try: what needs no data, what needs a few samples, what trains.

    Args:
        default: name of the shipped recipe that suits the network; it comes first.
    """
    listed = {
        option.name: option
        for option in (
            _shipped("dynamic_w8_afp32"),
            _shipped("weight_only_w8c", weights_only=True),
            _shipped("static_w8c_a8_rounded", integers="all"),
            _shipped("mixed_w8c_a8", integers="some"),
            _shipped("qat_w8c_a8_distilled", integers="all", trains=True),
        )
    }
    same = listed.pop(default, None)
    first = Option(f"{DEFAULT} ({default})", integers=same.integers if same else "")
    return [first, *listed.values(), pruned(SPEEDUP)]


def _shipped(name: str, **said: Any) -> Option:
    return Option(name, load_recipe(name), **said)


def pruned(speedup: float, **timed: str) -> Option:
    """Return the recipe that prunes for a measured speed-up.

    Args:
        speedup: latency now over latency afterwards.
        timed: settings of ``prune_channels``: runtime and precision of the file that is timed.
    """
    recipe = load_recipe(PRUNED)
    prune, *behind = recipe.stages
    stages = (msgspec.structs.replace(prune, speedup=speedup, **timed), *behind)
    return Option(
        f"{PRUNED} ({speedup:g} times)",
        msgspec.structs.replace(recipe, stages=stages),
        trains=True,
        speedup=speedup,
    )


def timed_on(option: Option, found: Mapping[Option, Sequence[TriedFile]]) -> Option:
    """Return an option that prunes by latency, on the runtime of the fastest int8 file so far.

    Where int8 is not faster than float32 on any, the latency of float32 counts.
    """
    if option.speedup is None:
        return option
    files = [f for tried in found.values() for f in tried]
    files = [f for f in files if f.precision == INT8.name and f.faster]
    fastest = min(files, key=lambda f: f.time, default=None)
    if fastest is None:
        return pruned(option.speedup, precision=FLOAT32.name)
    return pruned(option.speedup, precision=INT8.name, runtime=fastest.runtime)


def next_pruned(option: Option, tried: Sequence[TriedFile]) -> Option | None:
    """Return what to try after the first network that was pruned; None if nothing."""
    if option.speedup != SPEEDUP:
        return None
    return pruned(MORE_SPEEDUP if any(file.fits for file in tried) else LESS_SPEEDUP)


def why_not(option: Option, subject: Subject, found: Mapping[Option, Sequence[TriedFile]]) -> str:
    """Return why a recipe need not be tried, after those before it; "" if it should be."""
    return (
        _nothing_to_gain(option, found)
        or _weights_are_cached(option, subject)
        or _cannot_train(option, subject)
    )


def _nothing_to_gain(option: Option, found: Mapping[Option, Sequence[TriedFile]]) -> str:
    """Say that files which compute in integers as others do are no faster than those."""
    if not option.integers:
        return ""
    files = [
        (other, file)
        for other, tried in found.items()
        for file in tried
        if other.integers == "all" and file.precision == INT8.name
    ]
    fits = next((other for other, file in files if file.fits), None)
    if fits is not None:
        return f"no faster than {fits.name}, which fits"
    if files and not any(file.faster for _, file in files):
        return f"the int8 files of {files[0][0].name} are not faster than float32"
    return ""


def _weights_are_cached(option: Option, subject: Subject) -> str:
    if not option.weights_only:
        return ""
    size = sum(p.numel() * p.element_size() for p in subject.module.parameters())
    if size > CACHED_BYTES:
        return ""
    return (
        f"its files compute in float, which saves time only where weights exceed the caches; these "
        f"are {size / 1e6:.1f} MB"
    )


def _cannot_train(option: Option, subject: Subject) -> str:
    if not option.trains or option.recipe is None:
        return ""
    if option.speedup is not None and TRAIN not in with_splits(subject.task).splits:
        return f"it trains, and the data have no split '{TRAIN}'"
    try:
        for stage in option.recipe.stages:
            stage.check_subject(subject)
    except EdgedlError as error:
        return str(error)
    return ""
