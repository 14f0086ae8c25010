"""The normalisation of an input: outside of the file, as a float batch norm, or as a convolution.

Run as ``python -m benchmarks.runtimes.input_norms [SUBJECT...]``. The subjects take pictures from 0
to 1; here they take them with another mean and deviation for each channel, and bring the
normalisation that undoes it. All forms for each runtime, of one table of encodings, are timed in
one interleaved run, one thread.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import Target, load_target
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.precision import INT8
from edgedl.runtime.task.task import Batch, WrappedTask
from edgedl.tools.bench.bench import bench
from edgedl.tools.bench.entries import find_entries, put_baseline_first
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown, with_interval

SUBJECTS = ("resnet8-cifar10", "mobilenet_v2-cifar10")
Form = Literal["integer", "float", "outside"]
FORMS: tuple[Form, ...] = ("integer", "float", "outside")
HEADER = ("network", "runtime", "form", "KB", "time / convolution")
# What torchvision's networks take pictures with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Print a row for each network, runtime and form."""
    names = sys.argv[1:] or SUBJECTS
    rows = [row for name in names for row in compare(normalising(find_subject(name)))]
    print(to_markdown(HEADER, rows))


class Normalised(nn.Module):
    """A network behind the normalisation of its input."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        """Take the network."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, 3, H, W], then compute the network."""
        found: Tensor = self.network((x - self.mean) / self.std)
        return found


class Shifted(WrappedTask):
    """A task whose pictures become the other task's when they are normalised."""

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield a split in order."""
        mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (MEAN, STD))
        for batch in super().batches(split, batch_size):
            yield Batch((np.asarray(batch.inputs[0], np.float32) * std + mean,), batch.labels)


def normalising(subject: Subject) -> Subject:
    """Return the same network for pictures of another mean and deviation."""
    return replace(subject, module=Normalised(subject.module.eval()), task=Shifted(subject.task))


def compare(subject: Subject) -> list[list[str]]:
    """Return the rows of a network."""
    runtimes = (ORT, load_target("openvino"), TFLITE)
    forms = {t: [_form(t, form) for form in FORMS] for t in runtimes}
    targets = (ORT, *(form for found in forms.values() for form in found))
    with tempfile.TemporaryDirectory() as folder:
        made = compress(subject, load_recipe("static_w8c_a8"), targets, Path(folder), only=(INT8,))
        entries, missing = find_entries([made.bundle])
        settings = BenchSettings(threads=(1,), cold_starts=0)
        outcome = bench(
            subject.name, put_baseline_first(entries), subject.task, settings, missing=missing
        )
        rows = []
        for target, found in forms.items():
            names = [form.artifact_name(INT8) for form in found]
            times = [outcome.samples[f"1/{n}"].astype(np.float64) for n in names]
            files = [made.bundle.folder / made.bundle.artifact(n).path for n in names]
            if len({file.read_bytes() for file in files}) < len(files):
                raise SystemExit(f"{subject.name} has no normalisation to compute in several ways")
            for form, file, time in zip(FORMS, files, times, strict=True):
                ratio = paired_ratio(times[0], time)
                text = with_interval(ratio.value, (ratio.lo, ratio.hi), ".3f")
                size = f"{file.stat().st_size / 1000:.1f}"
                rows.append([subject.name, target.name, form, size, text])
        return rows


def _form(target: Target, form: Form) -> Target:
    return msgspec.structs.replace(target, input_norms=form, name=f"{target.name}_{form}")


if __name__ == "__main__":
    main()
