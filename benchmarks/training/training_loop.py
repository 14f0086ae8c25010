"""What the training loop costs: its samples per second over those of a bare torch loop.

Run as ``python -m benchmarks.training.training_loop [MODEL]``, resnet8-cifar10 if none
is named. Both loops train the same network on the same batches (augmented as the model's plan says;
of random pictures where the data set is not fetched) with the same optimizer, schedule and
autocast, one thread, in interleaved blocks of a few steps. Everything the loop does counts: the
run's set-up, the check of every loss, and in one line the checkpoint, which a real epoch of many
more steps writes once as well. The bare loop holds pictures with their channels last, as ours does;
"bare again" is the noise floor, "usual layout" what that brings.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgedl.compress.training import TrainingSettings, train
from edgedl.compress.training.mixed_precision import has_bfloat16
from edgedl.models.data.dataset import ImageDataset
from edgedl.models.data.datasets import find_dataset, load_split
from edgedl.models.data.images import LabelledImages
from edgedl.models.reference.image_batches import Augmentation, ImageBatches
from edgedl.models.reference.pretrained import build
from edgedl.models.reference.table import ReferenceModel, find_model
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.tools.jobs.reference_training import plan_of
from edgedl.tools.report.table import to_markdown, with_interval

BLOCKS, STEPS, BATCH = 32, 8, 32
PEAK, SEED = 0.01, 0


def main(name: str = "resnet8-cifar10") -> None:
    """Print a line for every variant: samples per second, and the ratio to the bare loop's."""
    torch.set_num_threads(1)
    model = find_model(name)
    batches = _batches(model)
    for mixed in (False, True) if has_bfloat16() else (False,):
        found = _time(model, batches, mixed)
        bare = found["bare"]
        lines = []
        for variant, seconds in found.items():
            rate = STEPS * BATCH / float(np.median(seconds))
            ratio = paired_ratio(seconds, bare)
            text = with_interval(ratio.value, (ratio.lo, ratio.hi), ".3f")
            lines.append([variant, f"{rate:.0f}", text])
        print(f"\n{name}, {'bfloat16' if mixed else 'float32'}, batch {BATCH}, "
              f"{BLOCKS} blocks of {STEPS} steps, one thread")  # fmt: skip
        print(to_markdown(["loop", "samples/s", "ratio to bare [95 %]"], lines))


def _time(
    model: ReferenceModel, batches: ImageBatches, mixed: bool
) -> dict[str, np.typing.NDArray[np.float64]]:
    """Return the seconds of every block [blocks, 1] of each variant, in a random order."""
    settings = TrainingSettings(1, BATCH, PEAK, mixed_precision=mixed)
    module = build(model)
    loops: dict[str, Callable[[], object]] = {
        "bare": partial(bare_loop, module, batches, settings, torch.channels_last),
        "bare again": partial(bare_loop, module, batches, settings, torch.channels_last),
        "bare, usual layout": partial(
            bare_loop, module, batches, settings, torch.contiguous_format
        ),
        "train": partial(train, module, batches, F.cross_entropy, settings),
        "train, averaged weights": partial(
            train, module, batches, F.cross_entropy, replace(settings, ema_decay=0.999)
        ),
        f"train, checkpoint every {STEPS} steps": partial(
            _with_checkpoint, module, batches, settings
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    order = random.Random(SEED)
    for block in range(BLOCKS + 1):
        for name in order.sample(list(loops), len(loops)):
            start = time.perf_counter()
            loops[name]()
            took = time.perf_counter() - start
            # The first block warms up.
            if block:
                seconds[name].append(took)
    return {name: np.array(values)[:, None] for name, values in seconds.items()}


def bare_loop(
    module: nn.Module,
    batches: ImageBatches,
    settings: TrainingSettings,
    layout: torch.memory_format,
) -> None:
    """Train one epoch as the tutorials of torch do, never looking at the loss."""
    module.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=settings.max_learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.max_learning_rate, total_steps=len(batches)
    )
    module.train()
    for inputs, labels in batches.epoch(torch.Generator().manual_seed(settings.seed)):
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.mixed_precision):
            outputs = module(inputs.contiguous(memory_format=layout))
        loss = F.cross_entropy(outputs.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _with_checkpoint(module: nn.Module, batches: ImageBatches, settings: TrainingSettings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(module, batches, F.cross_entropy, settings, Path(folder) / "checkpoint.pt")


def _batches(model: ReferenceModel) -> ImageBatches:
    """Return batches of one block, of the model's pictures or of noise in their shape."""
    dataset, count = find_dataset(model.dataset), STEPS * BATCH
    if not isinstance(dataset, ImageDataset):
        raise SystemExit(f"{model.name} takes no pictures: name a model that does")
    try:
        split = load_split(dataset.name, "train")
        pictures = LabelledImages(split.images[:count], split.labels[:count])
    except EdgedlError:
        rng = np.random.default_rng(SEED)
        images = rng.integers(0, 256, (count, *dataset.image_shape), np.uint8)
        pictures = LabelledImages(images, rng.integers(0, len(dataset.classes), count))
    return ImageBatches(pictures, BATCH, Augmentation.of(plan_of(model)))


if __name__ == "__main__":
    main(*sys.argv[1:2])
