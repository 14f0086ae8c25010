"""edgedl's int8 file on OpenVINO against NNCF's, OpenVINO's own quantizer, in one interleaved run.

Run as ``python -m benchmarks.runtimes.nncf_peer SUBJECT``; needs ``pip install edgedl[peers]``.
NNCF gets the float32 file of the same bundle, converted by OpenVINO, and the same calibration
samples, with each of its presets. All files are compiled with the settings of edgedl's runner,
and timed in one process with one thread; each is loaded anew several times.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from benchmarks.runtimes.peers import CALIBRATION_SAMPLES, calibration_samples
from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import load_target
from edgedl.runtime.backend import Array
from edgedl.runtime.backends.openvino import compile_model, latency_settings
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.measure.measure import Call, Protocol, measure_loads
from edgedl.runtime.measure.score_intervals import paired_drop
from edgedl.runtime.measure.worker import golden_call
from edgedl.runtime.precision import FLOAT32, INT8
from edgedl.runtime.task.batch_size import fitting_batches
from edgedl.runtime.task.task import Scores, Task
from edgedl.runtime.tensors import encode
from edgedl.tools.bench.entries import Entry
from edgedl.tools.bench.run_files import score_entry
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import to_markdown, with_interval

FLOAT, OWN = "openvino-float32", "openvino-int8"
PRESETS = ("performance", "mixed")
HEADER = ("file", "score %", "drop, points", "/ float32", "edgedl's int8 / this")


class FreshCall(Call):
    """A call that can be made anew: a file and what loads it.

    Attributes:
        load_ms: what the last load took.
    """

    def __init__(self, load: Callable[[], Call]) -> None:
        """Load it for the first time."""
        self._load = load
        self.load_ms = 0.0
        self.reload()

    def reload(self) -> None:
        """Load the file anew."""
        start = time.perf_counter()
        self._arm = self._load()._arm
        self.load_ms = 1e3 * (time.perf_counter() - start)


def main(subject: Subject) -> None:
    """Print a row for each file."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe("static_w8c_a8")
        only = (FLOAT32, INT8)
        bundle = compress(
            subject, recipe, (load_target("openvino"),), Path(folder), only=only
        ).bundle
        float32 = bundle.artifact(FLOAT)
        samples = calibration_samples(subject.task, CALIBRATION_SAMPLES)
        peers = {
            f"NNCF, {preset}": quantize(
                bundle.folder / float32.path, float32.inputs, samples, preset
            )
            for preset in PRESETS
        }
        times = measure_files(bundle, peers, float32.inputs)
        scores = {
            n: score_entry(Entry(n, bundle, bundle.artifact(n)), subject.task) for n in (FLOAT, OWN)
        } | {n: score(model, subject.task, float32.inputs) for n, model in peers.items()}
    rows = [
        [
            name,
            f"{100 * scores[name].mean():.2f}",
            _drop(scores[FLOAT], scores[name]),
            _ratio(times[FLOAT], times[name]),
            _ratio(times[name], times[OWN]),
        ]
        for name in times
    ]
    print(f"{subject.name}, OpenVINO, one thread, batch 1:\n")
    print(to_markdown(list(HEADER), rows))


def quantize(
    source: Path, inputs: Sequence[TensorSpec], samples: list[tuple[Array, ...]], preset: str
) -> "openvino.Model":
    """Return NNCF's int8 model.

    Args:
        source: float32 ONNX file.
        inputs: of that file.
        samples: batches of calibration samples, one array [B, ...] per input.
        preset: symmetric ("performance") or asymmetric ("mixed") activations.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    single = [
        {spec.name: encode(x[k : k + 1], spec) for x, spec in zip(batch, inputs, strict=True)}
        for batch in samples
        for k in range(len(batch[0]))
    ]
    model = openvino.Core().read_model(source)
    return nncf.quantize(
        model,
        nncf.Dataset(single),
        preset=nncf.QuantizationPreset(preset),
        subset_size=len(single),
    )


def measure_files(
    bundle: Bundle, peers: Mapping[str, "openvino.Model"], inputs: Sequence[TensorSpec]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the times of edgedl's files and of the peers', float64 [loads, blocks, calls]."""
    one = [encode(x[:1], spec) for x, spec in zip(golden_inputs(bundle), inputs, strict=True)]

    def own(name: str) -> Callable[[], Call]:
        return lambda: golden_call(bundle, name, 1)

    def peer(model: "openvino.Model") -> Callable[[], Call]:
        return lambda: Call(_runs(model, one))

    arms = {n: FreshCall(own(n)) for n in (FLOAT, OWN)}
    arms |= {n: FreshCall(peer(model)) for n, model in peers.items()}
    found = measure_loads(arms, Protocol())
    return {n: m.latency_ns.astype(np.float64) for n, m in found.items()}


def _runs(model: "openvino.Model", inputs: list[Array]) -> Callable[[], object]:
    """Return what runs a model for one sample: as edgedl's session does, its outputs copied."""
    request = _compiled(model, [x.shape for x in inputs]).create_infer_request()
    feeds = dict(enumerate(inputs))
    count = len(model.outputs)

    def run() -> list[Any]:
        request.infer(feeds, share_inputs=True)
        return [np.array(request.get_output_tensor(k).data) for k in range(count)]

    return run


def _compiled(model: "openvino.Model", shapes: Sequence[tuple[int, ...]]) -> Any:
    sized = model.clone()
    sized.reshape(dict(enumerate(map(list, shapes))))
    return compile_model(openvino.Core(), sized, latency_settings("f32", 1))


def score(model: "openvino.Model", task: Task, inputs: Sequence[TensorSpec]) -> Scores:
    """Score a model on the whole test split: float64 [N]."""
    scores = []
    compiled: dict[tuple[tuple[int, ...], ...], Any] = {}
    for batch in fitting_batches(task, "test"):
        encoded = [encode(x, s) for x, s in zip(batch.inputs, inputs, strict=True)]
        shapes = tuple(x.shape for x in encoded)
        if shapes not in compiled:
            compiled[shapes] = _compiled(model, shapes)
        found = compiled[shapes](encoded)
        outputs = [found[k] for k in range(len(model.outputs))]
        scores.append(task.score(tuple(outputs), batch.labels))
    return np.concatenate(scores)


def _drop(base: Scores, scores: Scores) -> str:
    found = paired_drop(base, scores)
    return with_interval(100 * found.value, (100 * found.lo, 100 * found.hi), "+.2f")


def _ratio(base: npt.NDArray[np.float64], times: npt.NDArray[np.float64]) -> str:
    found = paired_ratio(base, times)
    return with_interval(found.value, (found.lo, found.hi), ".3f")


if __name__ == "__main__":
    main(find_subject(sys.argv[1]))
