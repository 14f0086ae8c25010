"""A model file that came alone, given a bundle: so it is measured as those of a bundle are."""

import itertools
import shutil
from pathlib import Path

from edgedl.compress.modelfile.layer import FileLayer
from edgedl.compress.modelfile.read import read_layers
from edgedl.runtime.backends.runtimes import RUNTIMES, open_backend
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.bundle.golden import GOLDEN, GOLDEN_SAMPLES, encode_golden
from edgedl.runtime.bundle.manifest import (
    Artifact,
    Manifest,
    TaskRecord,
    TensorSpec,
)
from edgedl.runtime.precision import (
    DYNAMIC_INT8,
    FLOAT16,
    FLOAT32,
    INT4_WEIGHTS,
    INT8,
    INT8_INT16,
    INT8_WEIGHTS,
    Precision,
)
from edgedl.runtime.task.task import Task
from edgedl.tools.bench.file_tensors import fit_tensors

# Of runtimes with files of one format, the first.
BACKEND_OF = {open_backend(name).suffix: name for name in reversed(RUNTIMES)}
_INTEGERS = ("int8", "uint8")
_FINDS_RANGES = ("MatMulInteger", "ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul")


def is_model_file(path: Path) -> bool:
    """Say whether a path is a model file rather than a bundle."""
    return path.is_file() and path.suffix in BACKEND_OF


def wrap_file(path: Path, task: Task, folder: Path) -> tuple[Bundle, tuple[str, ...]]:
    """Write a bundle of one model file into a new folder; return it, and what to say of the file.

    Its golden inputs are the first of the task's test split; it has no golden outputs.

    Args:
        path: a file whose suffix is that of a runtime's files.
        task: what the file computes; ``fit_tensors`` says how its arrays may differ.
        folder: to be made.

    Raises:
        BadInputError: the file is damaged, or takes other inputs than the task gives.
    """
    backend, content = BACKEND_OF[path.suffix], path.read_bytes()
    precision = precision_of(read_layers(content, str(path)), backend)
    batches = itertools.islice(task.batches("test", GOLDEN_SAMPLES), 1)
    given = next(batch.inputs for batch in batches)
    fitted = fit_tensors(path, *_describe(content, backend), given)
    folder.mkdir(parents=True)
    shutil.copyfile(path, folder / path.name)
    with atomic_write(folder / GOLDEN) as written:
        written.write(encode_golden(given, {}))
    name = f"{backend}-{precision}"
    manifest = Manifest(
        name=path.stem,
        task=TaskRecord(task.name, task.metric, tuple(task.classes)),
        inputs=fitted.logical_inputs,
        outputs=fitted.logical_outputs,
        preprocessing=task.preprocessing,
        artifacts=(
            Artifact(name, backend, precision.name, path.name, fitted.inputs, fitted.outputs, ()),
        ),
        files=record_files(folder),
        history=(),
        toolchain={},
        licence="unknown",
        data="unknown",
    )
    write_manifest(folder, manifest)
    return Bundle.open(folder), fitted.notes


def precision_of(layers: list[FileLayer], backend: str) -> Precision:
    """Return what most of a file's multiply-accumulates are computed in.

    Where some are unknown, it is what most of the operators that multiply are computed in.
    """
    most: dict[Precision, int] = {}
    # What runs others is none of them.
    runs_others = {layer.inside.rpartition("/")[0] for layer in layers if layer.inside}
    multiply = [x for x in layers if x.macs != 0 and x.name not in runs_others]
    known = all(layer.macs is not None for layer in multiply)
    for layer in multiply:
        kind = _precision_of(layer, backend)
        most[kind] = most.get(kind, 0) + (layer.macs or 0 if known else 1)
    return max(most, key=lambda kind: most[kind], default=FLOAT32)


def _precision_of(layer: FileLayer, backend: str) -> Precision:
    weight = layer.weight.dtype if layer.weight else ""
    if layer.operator.partition("+")[0] in _FINDS_RANGES:
        return DYNAMIC_INT8
    if layer.inputs in _INTEGERS:
        return INT8
    if layer.inputs == "int16":
        return INT8_INT16
    if weight in _INTEGERS:
        return DYNAMIC_INT8 if open_backend(backend).rounds_inputs else INT8_WEIGHTS
    if weight in ("int4", "uint4"):
        return INT4_WEIGHTS
    return FLOAT16 if layer.inputs == "float16" else FLOAT32


def _describe(
    content: bytes, backend: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    from edgedl.compress.export.exporter import exporter_of
    from edgedl.compress.targets.target import load_target

    return exporter_of(load_target(backend)).describe(content)
