"""edgedl's int8 files against those of the runtimes' own quantizers, in one interleaved run.

Run as ``python -m benchmarks.runtimes.peers SUBJECT [--without-amx]``. The peers get
the float32 files of the same bundle and the same calibration samples, at their best settings:
onnxruntime.quantization with unsigned activations and per-channel weights (of 7 bits where this
processor has no VNNI, as its documentation advises), litert-quantizer with its static recipe and
true minimum and maximum.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgedl.compress.export.onnx.file_passes import to_file
from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.compress.export.tflite.interface import describe_tflite
from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.backend import Array
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.measure.amx import refuse_amx
from edgedl.runtime.measure.latency_intervals import paired_ratio
from edgedl.runtime.precision import FLOAT16, INT8
from edgedl.runtime.task.task import Task
from edgedl.runtime.tensors import encode
from edgedl.tools.bench.bench import BenchOutcome, bench
from edgedl.tools.bench.entries import find_entries, put_baseline_first
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.subjects import find_subject
from edgedl.tools.report.table import result_markdown

PAIRS = (("ort-int8", "ort-peer"), ("tflite-int8", "tflite-peer"))
CALIBRATION_SAMPLES = 512


def compare(subject: Subject) -> None:
    """Print the table, and the two ratios of edgedl's file over the peer's."""
    outcome = measure(subject)
    print(result_markdown(outcome.result))
    for own, peer in PAIRS:
        print(f"{own} over {peer}: {ratio_of(outcome, own, peer)}")


def measure(subject: Subject) -> BenchOutcome:
    """Make the files of both, without float16, and time them in one interleaved run."""
    with tempfile.TemporaryDirectory() as folder:
        made = compress(subject, load_recipe("static_w8c_a8"), (ORT, TFLITE), Path(folder))
        bundle = add_peers(made.bundle, subject)
        entries, missing = find_entries([bundle])
        entries = [e for e in entries if e.artifact.kind is not FLOAT16]
        settings = BenchSettings(threads=(1,), cold_starts=0)
        ordered = put_baseline_first(entries)
        return bench(subject.name, ordered, subject.task, settings, missing=missing)


def ratio_of(outcome: BenchOutcome, name: str, baseline: str) -> str:
    """Return the time of one file over another's, with its interval."""
    times, base = (outcome.samples[f"1/{n}"].astype(np.float64) for n in (name, baseline))
    ratio = paired_ratio(base, times)
    return f"{ratio.value:.3f} [{ratio.lo:.3f}, {ratio.hi:.3f}]"


def add_peers(bundle: Bundle, subject: Subject) -> Bundle:
    """Quantize the bundle's float32 files with the runtimes' own tools and add the results."""
    samples = calibration_samples(subject.task, CALIBRATION_SAMPLES)
    with quiet():
        onnx_file, tflite_file = (
            quantize(bundle.folder / float32.path, float32.inputs, samples)
            for float32, quantize in (
                (bundle.artifact("ort-float32"), quantize_onnx),
                (bundle.artifact("tflite-float32"), quantize_tflite),
            )
        )
    (bundle.folder / "peer.onnx").write_bytes(onnx_file)
    (bundle.folder / "peer.tflite").write_bytes(tflite_file)
    peers = (
        Artifact("ort-peer", ORT.runtime, INT8.name, "peer.onnx", *describe_onnx(onnx_file), ()),
        Artifact(
            "tflite-peer",
            TFLITE.runtime,
            INT8.name,
            "peer.tflite",
            *describe_tflite(tflite_file),
            (),
        ),
    )
    manifest = msgspec.structs.replace(
        bundle.manifest,
        artifacts=(*bundle.manifest.artifacts, *peers),
        files=record_files(bundle.folder),
    )
    write_manifest(bundle.folder, manifest)
    return Bundle.open(bundle.folder)


def calibration_samples(task: Task, count: int) -> list[tuple[Array, ...]]:
    """Return batches of the calibration samples, one array [32, ...] per input."""
    batches = calibration_inputs(task, count, 32)
    return [tuple(x.numpy() for x in batch) for batch in batches]


def quantize_onnx(
    source: Path, inputs: Sequence[TensorSpec], samples: list[tuple[Array, ...]]
) -> bytes:
    """Return onnxruntime.quantization's static QDQ file.

    Args:
        source: float32 file.
        inputs: of that file.
        samples: batches of calibration samples, one array [B, ...] per input.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    step = inputs[0].shape[0] or 32

    class Reader(quantization.CalibrationDataReader):
        """Feeds the calibration samples once, in the batches that the file takes."""

        def __init__(self) -> None:
            self._batches = (
                tuple(x[i : i + step] for x in batch)
                for batch in samples
                for i in range(0, len(batch[0]), step)
            )

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self._batches, None)
            if batch is None:
                return None
            return {s.name: encode(x, s) for x, s in zip(batch, inputs, strict=True)}

    with tempfile.TemporaryDirectory() as folder:
        prepared, target = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=ORT.weight_bits_here < ORT.weight_bits,
        )
        return to_file(onnx.load(str(target)))


def quantize_tflite(
    source: Path, inputs: Sequence[TensorSpec], samples: list[tuple[Array, ...]]
) -> bytes:
    """Return litert-quantizer's static int8 file, calibrated with minimum and maximum."""
    from litert_quantizer import calibrator, quantizer, recipe
    from litert_quantizer.utils import qsv_utils

    tool = quantizer.Quantizer(str(source))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    # The public calibrate() smooths its minima and maxima, which costs up to 19 dB.
    calibration = calibrator.Calibrator(
        tool._float_model_buffer, num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    feeds = [
        {
            f"args_{k}": encode(x[i : i + 1], spec)
            for k, (x, spec) in enumerate(zip(batch, inputs, strict=True))
        }
        for batch in samples[:4]
        for i in range(len(batch[0]))
    ]
    calibration.calibrate({"serving_default": feeds}, tool._recipe_manager)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.tflite"
        result = tool.quantize(calibration.get_model_qsvs(), enable_progress_report=False)
        result.export_model(str(target))
        return target.read_bytes()


if __name__ == "__main__":
    if "--without-amx" in sys.argv:
        print(refuse_amx())
    compare(find_subject(sys.argv[1]))
