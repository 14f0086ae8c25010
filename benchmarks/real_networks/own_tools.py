"""The runtimes' own quantizers on the float32 files of a bundle, with the same samples."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.runtimes.peers import quantize_onnx, quantize_tflite
from edgedl.compress.export.onnx.file_passes import to_file
from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.compress.export.tflite.interface import describe_tflite
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.backend import Array
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.precision import INT8

Samples = list[tuple[Array, ...]]
Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


@dataclass(frozen=True)
class OwnTool:
    """A runtime's own quantizer.

    Attributes:
        name: of its file.
        runtime: whose float32 file it takes.
        suffix: of the file.
        quantize: (float32 file, its inputs, samples) -> file.
        describe: file -> its inputs and outputs.
    """

    name: str
    runtime: str
    suffix: str
    quantize: Callable[[Path, Sequence[TensorSpec], Samples], bytes]
    describe: Callable[[bytes], Specs]


def _onnx_dynamic(source: Path, inputs: Sequence[TensorSpec], samples: Samples) -> bytes:
    """Return onnxruntime.quantization's dynamic file; it needs no samples."""
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "dynamic.onnx"
        quantization.quantize_dynamic(
            str(source),
            str(target),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=ORT.weight_bits_here < ORT.weight_bits,
        )
        return to_file(onnx.load(str(target)))


def _tflite_dynamic(source: Path, inputs: Sequence[TensorSpec], samples: Samples) -> bytes:
    """Return litert-quantizer's dynamic file; it needs no samples."""
    from litert_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(source))
    tool.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "dynamic.tflite"
        tool.quantize(enable_progress_report=False).export_model(str(target))
        return target.read_bytes()


OWN_TOOLS = (
    OwnTool("ort-own-static", ORT.runtime, ".onnx", quantize_onnx, describe_onnx),
    OwnTool("ort-own-dynamic", ORT.runtime, ".onnx", _onnx_dynamic, describe_onnx),
    OwnTool("tflite-own-static", TFLITE.runtime, ".tflite", quantize_tflite, describe_tflite),
    OwnTool("tflite-own-dynamic", TFLITE.runtime, ".tflite", _tflite_dynamic, describe_tflite),
)


def add_own(bundle: Bundle, samples: Samples) -> tuple[Bundle, dict[str, str]]:
    """Add the runtimes' own int8 files to a bundle; return it, and why others were not made."""
    made, failed = [], {}
    for tool in OWN_TOOLS:
        float32 = next(_float_files(bundle, tool.runtime), None)
        if float32 is None:
            failed[tool.name] = f"there is no float32 file of {tool.runtime}"
            continue
        try:
            with quiet():
                content = tool.quantize(bundle.folder / float32.path, float32.inputs, samples)
        except Exception as error:
            # What another project's tool raises is a line of the table.
            failed[tool.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        path = f"{tool.name}{tool.suffix}"
        (bundle.folder / path).write_bytes(content)
        specs = _in_the_layout_of(float32, tool.describe(content))
        made.append(Artifact(tool.name, tool.runtime, INT8.name, path, *specs, ()))
    manifest = msgspec.structs.replace(
        bundle.manifest,
        artifacts=(*bundle.manifest.artifacts, *made),
        files=record_files(bundle.folder),
    )
    write_manifest(bundle.folder, manifest)
    return Bundle.open(bundle.folder), failed


def _float_files(bundle: Bundle, runtime: str) -> Iterator[Artifact]:
    name = f"{runtime}-float32"
    return (a for a in bundle.manifest.artifacts if a.name == name)


def _in_the_layout_of(float32: Artifact, specs: Specs) -> Specs:
    """Return inputs and outputs with the layouts that the float32 file has."""
    inputs, outputs = (
        tuple(
            msgspec.structs.replace(spec, layout=known.layout)
            for spec, known in zip(found, old, strict=True)
        )
        for found, old in zip(specs, (float32.inputs, float32.outputs), strict=True)
    )
    return inputs, outputs
