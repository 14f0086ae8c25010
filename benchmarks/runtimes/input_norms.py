"""The normalisation of an input as a batch norm in float, or as an integer convolution.

Run as ``python -m benchmarks.runtimes.input_norms [SUBJECT...]``. Both forms for each runtime, of
one table of encodings, timed in one interleaved run, one thread.
"""

import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import Target, load_target
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.precision import INT8
from edgedl.tools.bench.bench import bench
from edgedl.tools.bench.entries import find_entries, put_baseline_first
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown

SUBJECTS = ("resnet8-cifar10", "mobilenet_v2-cifar10")
HEADER = ("network", "runtime", "batch norm / convolution", "KB", "KB, convolution")


def main() -> None:
    """Print a row for each network and runtime."""
    names = sys.argv[1:] or SUBJECTS
    rows = [row for name in names for row in compare(find_subject(name))]
    print(to_markdown(HEADER, rows))


def compare(subject: Subject) -> list[list[str]]:
    """Return the rows of a network."""
    runtimes = (ORT, load_target("openvino"), TFLITE)
    forms = {t: (_form(t, True), _form(t, False)) for t in runtimes}
    targets = (ORT, *(form for pair in forms.values() for form in pair))
    with tempfile.TemporaryDirectory() as folder:
        made = compress(subject, load_recipe("static_w8c_a8"), targets, Path(folder), only=(INT8,))
        entries, missing = find_entries([made.bundle])
        settings = BenchSettings(threads=(1,), cold_starts=0)
        outcome = bench(
            subject.name, put_baseline_first(entries), subject.task, settings, missing=missing
        )
        rows = []
        for target, pair in forms.items():
            names = [form.artifact_name(INT8) for form in pair]
            norm, convolution = (outcome.samples[f"1/{n}"].astype(np.float64) for n in names)
            ratio = paired_ratio(convolution, norm)
            sizes = [made.bundle.artifact(n).path for n in names]
            kilobytes = [(made.bundle.folder / path).stat().st_size / 1000 for path in sizes]
            text = f"{ratio.value:.3f} [{ratio.lo:.3f}, {ratio.hi:.3f}]"
            rows.append([subject.name, target.name, text, *(f"{k:.1f}" for k in kilobytes)])
        return rows


def _form(target: Target, norms: bool) -> Target:
    name = f"{target.name}_{'norm' if norms else 'convolution'}"
    return msgspec.structs.replace(target, float_input_norms=norms, name=name)


if __name__ == "__main__":
    main()
