"""Torch-Pruning and edgedl: the same network, teacher, multiply-adds, training and quantization.

Run as ``python -m benchmarks.training.torch_pruning FOLDER [--subject NAME] [--speedup S]
[--remove blocks|channels|both] [--runtime NAME] [--epochs N] [--samples N] [--seeds N...]``; needs
``pip install edgedl[dev]``. edgedl removes blocks, or channels in multiples of 8, until the int8
file is S times faster on the runtime; or blocks for a third of that (of its logarithm), then
channels. Torch-Pruning then removes channels until it has as few multiply-adds, globally, by the
norms of its groups, in multiples of 8. Both networks are trained by the same stage on the answers
of the whole network, and quantized by the same recipe. A run that was cut off goes on where it was;
what is done is found in FOLDER.
"""

import argparse
import copy
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from torch import nn

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.stage import Stage
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import load_target
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.seal import MANIFEST
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.measure.score_intervals import paired_drop
from edgedl.runtime.precision import FLOAT32, INT8
from edgedl.runtime.task.task import Scores
from edgedl.tools.bench.entries import Entry, find_entries
from edgedl.tools.bench.run_files import score_entry, time_entries
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown, with_interval

OWN, PEER, WHOLE = "edgedl", "Torch-Pruning", "whole network"
RUNTIMES = ("ort", "openvino", "tflite")
QUANTIZED = "static_w8c_a8_rounded"
MULTIPLE = 8
SHARE_OF_BLOCKS = 1 / 3
# Torch-Pruning removes a share of the channels in steps of this size until it comes to the goal.
STEPS = 400
HEADER = ("network", *(f"{r}-int8 %" for r in RUNTIMES), *(f"{r}-int8" for r in RUNTIMES))


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        folder: of bundles and of results of stages.
        speedup, runtime: what edgedl removes blocks or channels for.
        remove: "blocks", "channels" or "both".
        epochs, samples: of the training; samples are those of an epoch.
        seeds: one training of each network for each.
    """

    folder: Path
    subject: str
    speedup: float
    remove: str
    runtime: str
    epochs: int
    samples: int
    seeds: tuple[int, ...]


def main() -> None:
    """Train both networks for every seed, print their scores, then their times."""
    options = read_options()
    torch.set_num_threads(1)
    subject = find_subject(options.subject)
    subject = replace(subject, teachers=(copy.deepcopy(subject.module).eval(),))
    whole = make(subject, (), options.folder / "whole", options)
    bundles: dict[str, list[Bundle]] = {OWN: [], PEER: []}
    macs: dict[tuple[str, int], int] = {}
    for seed in options.seeds:
        training = FineTune(
            epochs=options.epochs, samples=options.samples, temperature=2.0, seed=seed
        )
        stages = (*prune_stages(options), training)
        bundles[OWN].append(make(subject, stages, options.folder / f"own-{seed}", options))
        module = prune_with_peer(subject, macs_of(bundles[OWN][-1]))
        macs[OWN, seed] = macs_of(bundles[OWN][-1])
        macs[PEER, seed] = count_macs(module, subject.example_inputs()[0][:1])
        pruned = replace(subject, module=module)
        peer = make(pruned, (training,), options.folder / f"peer-{seed}", options)
        bundles[PEER].append(peer)
    print(*(f"{name}, seed {seed}: {n} MACs" for (name, seed), n in macs.items()), sep="\n")
    compare(subject, whole, bundles)


def make(subject: Subject, stages: tuple[Stage, ...], folder: Path, options: Options) -> Bundle:
    """Return the bundle in the folder; where there is none, make it."""
    if not (folder / MANIFEST).is_file():
        # What a run that was cut off has left is made anew; the store has its stages.
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        quantized = load_recipe(QUANTIZED).stages
        compress(
            subject,
            Recipe("pruned, trained, quantized", (*stages, *quantized)),
            tuple(load_target(name) for name in RUNTIMES),
            partial,
            store=StageStore(options.folder / "stages"),
            only=(FLOAT32, INT8),
        )
        partial.rename(folder)
        print(f"made {folder.name}", flush=True)
    return Bundle.open(folder)


def prune_stages(options: Options) -> tuple[Stage, ...]:
    """Return edgedl's stages that remove blocks, channels, or both."""
    by_blocks = {"blocks": 1.0, "channels": 0.0, "both": SHARE_OF_BLOCKS}[options.remove]
    stages: list[Stage] = []
    if by_blocks > 0:
        stages.append(
            PruneBlocks(
                speedup=options.speedup**by_blocks, runtime=options.runtime, precision="int8"
            )
        )
    if by_blocks < 1:
        stages.append(
            PruneChannels(
                speedup=options.speedup ** (1 - by_blocks),
                runtime=options.runtime,
                precision="int8",
                importance="taylor",
                multiple=MULTIPLE,
            )
        )
    return tuple(stages)


def macs_of(bundle: Bundle) -> int:
    """Return the multiply-adds that the pruning left."""
    *_, left = (
        entry.settings["macs_after"]
        for entry in bundle.manifest.history
        if "macs_after" in entry.settings
    )
    assert isinstance(left, int)
    return left


def prune_with_peer(subject: Subject, macs: int) -> nn.Module:
    """Return the subject's network with as many multiply-adds, as Torch-Pruning chooses them."""
    module = copy.deepcopy(subject.module).eval()
    (example,) = subject.example_inputs()
    example = example[:1]
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.MagnitudePruner(
            module,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=1.0,
            iterative_steps=STEPS,
            ignored_layers=[last],
            round_to=MULTIPLE,
        )
        for _ in range(STEPS):
            if count_macs(module, example) <= macs:
                return module
            pruner.step()
    raise SystemExit(f"Torch-Pruning does not come to {macs} multiply-adds")


def count_macs(module: nn.Module, example: torch.Tensor) -> int:
    """Count the multiply-adds of convolutions and linear layers for one sample."""
    counts: list[int] = []

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        weight = layer.weight
        places = output[0].numel() // output.shape[1]
        counts.append(places * weight.numel())  # type: ignore[operator]

    hooks = [
        m.register_forward_hook(count)
        for m in module.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def compare(subject: Subject, whole: Bundle, bundles: dict[str, list[Bundle]]) -> None:
    """Print scores of all trainings, and the times of the first of each."""
    files: dict[tuple[str, int, str], Entry] = {}
    for name, made in {WHOLE: [whole], **bundles}.items():
        for number, bundle in enumerate(made):
            for entry in find_entries([bundle])[0]:
                if entry.artifact.kind is INT8:
                    key = (name, number, entry.artifact.backend)
                    files[key] = replace(entry, name=" ".join(map(str, key)))
    scores = {key: score_entry(entry, subject.task) for key, entry in files.items()}
    timed = {key: entry for key, entry in files.items() if key[1] == 0}
    measured = time_entries(list(timed.values()), 1, Protocol())
    times = {k: measured[e.name].latency_ns.astype(np.float64) for k, e in timed.items()}
    rows = [
        [
            f"{name}, training {number + 1}" if name != WHOLE else name,
            *(f"{100 * scores[name, number, r].mean():.2f}" for r in RUNTIMES),
            *(
                ratio(times[WHOLE, 0, r], times[name, 0, r]) if number == 0 else ""
                for r in RUNTIMES
            ),
        ]
        for name, number in dict.fromkeys(key[:2] for key in files)
    ]
    print("\nscores, and times over those of the whole network's int8 file on the same runtime:\n")
    print(to_markdown(list(HEADER), rows))
    for runtime in RUNTIMES:
        print(
            f"{OWN} over {PEER}, {runtime}-int8: time "
            f"{ratio(times[PEER, 0, runtime], times[OWN, 0, runtime])}, points "
            f"{gain(scores, runtime, len(bundles[OWN]))}"
        )


def ratio(base: np.ndarray, times: np.ndarray) -> str:
    """Return one time over another, with its interval."""
    found = paired_ratio(base, times)
    return with_interval(found.value, (found.lo, found.hi), ".3f")


def gain(scores: dict[tuple[str, int, str], Scores], runtime: str, trainings: int) -> str:
    """Return the points of edgedl above its peer: the mean of all trainings, paired by sample."""
    own, peer = (
        np.mean([scores[name, n, runtime] for n in range(trainings)], axis=0)
        for name in (OWN, PEER)
    )
    found = paired_drop(own, peer)
    return with_interval(100 * found.value, (100 * found.lo, 100 * found.hi), "+.2f")


def read_options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subject", default="resnet20-cifar10")
    parser.add_argument("--speedup", type=float, default=1.7)
    parser.add_argument("--remove", choices=("blocks", "channels", "both"), default="both")
    parser.add_argument("--runtime", choices=RUNTIMES, default="openvino")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    return Options(**{**vars(given), "seeds": tuple(given.seeds)})


if __name__ == "__main__":
    main()
