"""Compress networks drawn at random, and look at every file with other eyes.

Run as ``python -m benchmarks.sweep.sweep [FIRST_SEED] [COUNT] [--out FILE]``. Every
network goes through the default recipe for three runtimes; every second one, too, through a recipe
that prunes. A line for each, and the counts at the end; exit code 1 if anything is wrong.

What is checked knows nothing of how edgedl checks: shapes, and the decibels of every part that a
head has joined, on samples that nobody saw. A part below the documented limit without a finding is
wrong, and so is any error that is not one of edgedl's own sentences.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.sweep.grammar import Drawn, draw
from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import load_target
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples

RUNTIMES = ("ort", "tflite", "openvino")
SAMPLES = 48
# docs/acceptance.md: a part with less is a finding.
DESTROYED_DB = 10.0
FLOAT_DB = 50.0


@dataclass(frozen=True)
class Outcome:
    """What became of one network under one recipe.

    Attributes:
        seed: of the network. recipe: "default" or "prune".
        words: its steps.
        files: name of a file -> decibels of its weakest part.
        findings: names of the files that have some.
        refused: name of a file -> the reason.
        said: why nothing was made, in edgedl's own words; empty if something was.
        wrong: what must not be.
    """

    seed: int
    recipe: str
    words: tuple[str, ...]
    files: dict[str, float]
    findings: tuple[str, ...]
    refused: dict[str, str]
    said: str
    wrong: tuple[str, ...]


def sweep_one(seed: int, prune: bool) -> Outcome:
    """Compress the network of a seed by the default recipe, or by one that prunes."""
    drawn, recipe = draw(seed), "prune" if prune else "default"
    stages = Recipe(
        "prune", (PruneChannels(ratio=0.5, multiple=1), *load_recipe("static_w8c_a8").stages)
    )
    subject = Subject(f"drawn-{seed}", drawn.module, _task(drawn))
    targets = tuple(load_target(name) for name in RUNTIMES)
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = compress(subject, stages if prune else None, targets, Path(folder))
        except EdgedlError as error:
            return Outcome(seed, recipe, drawn.words, {}, (), {}, str(error), ())
        except Exception as error:
            wrong = (f"{type(error).__name__}: {error}",)
            return Outcome(seed, recipe, drawn.words, {}, (), {}, "", wrong)
        return _looked_at(drawn, recipe, made)


def _looked_at(drawn: Drawn, recipe: str, made: CompressedModel) -> Outcome:
    x = _inputs(drawn, 9)
    # What was pruned is another network: its float32 file says what the others must say.
    wanted = _torch_outputs(drawn, x) if made.parent is None else None
    files: dict[str, float] = {}
    wrong = []
    for artifact in made.bundle.manifest.artifacts:
        with Runner(made.bundle, artifact) as runner:
            found = [np.asarray(y) for y in runner(x)]
        if wanted is None:
            wanted = found
        shapes = [y.shape for y in found], [y.shape for y in wanted]
        if shapes[0] != shapes[1]:
            wrong.append(f"{artifact.name} gives {shapes[0]}, not {shapes[1]}")
            continue
        files[artifact.name] = weakest = min(_decibels(drawn, found, wanted))
        wrong += _complaints(artifact, weakest)
    return Outcome(
        drawn.seed,
        recipe,
        drawn.words,
        {name: round(db, 1) for name, db in files.items()},
        tuple(a.name for a in made.bundle.manifest.artifacts if a.findings),
        {refusal.name: refusal.reason for refusal in made.refusals},
        "",
        tuple(wrong),
    )


def _complaints(artifact: Artifact, weakest: float) -> Iterator[str]:
    if artifact.kind is FLOAT32 and weakest < FLOAT_DB:
        yield f"{artifact.name} has {weakest:.1f} dB"
    elif weakest < DESTROYED_DB - 2.0 and not artifact.findings:
        # Other samples than those it was judged on: 2 dB are left to chance.
        yield f"{artifact.name} has {weakest:.1f} dB in a part, and no finding"


def _decibels(drawn: Drawn, found: list[np.ndarray], wanted: list[np.ndarray]) -> Iterator[float]:
    for output, mask in drawn.parts:
        a, b = (y[output].reshape(len(y[output]), -1)[:, mask.numpy()] for y in (found, wanted))
        energy = np.square(b, dtype=np.float64).sum()
        noise = np.square(a - b, dtype=np.float64).sum()
        yield float(10 * np.log10(energy / noise)) if energy and noise else 200.0


def _torch_outputs(drawn: Drawn, x: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        found = drawn.module.eval()(torch.from_numpy(x))
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


def _inputs(drawn: Drawn, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, drawn.seed])
    return rng.standard_normal((SAMPLES, *drawn.shape)).astype(np.float32)


def _task(drawn: Drawn) -> ArrayTask:
    def split(seed: int) -> Samples:
        x = _inputs(drawn, seed)
        # The network's own first output is the label: the score is how near a file is to it.
        return Samples((x,), _torch_outputs(drawn, x)[0].reshape(len(x), -1))

    def near(outputs: object, labels: np.ndarray) -> np.ndarray:
        found = outputs[0].reshape(len(labels), -1)  # type: ignore[index]
        error = np.square(found - labels).mean(1)
        return np.asarray(1 / (1 + error), np.float64)

    splits = {"calibration": lambda: split(1), "test": lambda: split(2)}
    return ArrayTask(f"drawn-{drawn.seed}", splits, "nearness", near)


def main() -> int:
    """Run the sweep and print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("first", nargs="?", type=int, default=0)
    parser.add_argument("count", nargs="?", type=int, default=150)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    outcomes = []
    for seed in range(options.first, options.first + options.count):
        for prune in (False, True)[: 1 + seed % 2]:
            outcome = sweep_one(seed, prune)
            outcomes.append(outcome)
            said = outcome.said or f"{len(outcome.files)} files, {len(outcome.refused)} refused"
            wrong = "; ".join(outcome.wrong)
            print(f"{seed} {outcome.recipe} {' '.join(outcome.words)}: {said} {wrong}", flush=True)
            if options.out is not None:
                options.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes)))
    bad = [o for o in outcomes if o.wrong]
    files = sum(len(o.files) for o in outcomes)
    refused = sum(len(o.refused) for o in outcomes)
    nothing = sum(bool(o.said) for o in outcomes)
    findings = sum(len(o.findings) for o in outcomes)
    print(
        f"{len(outcomes)} jobs, {files} files, {refused} refused, {findings} with findings, "
        f"{nothing} without any file, {len(bad)} wrong"
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
