"""A module, or an ONNX file, and the name of its data: what becomes of them."""

from pathlib import Path
from typing import cast

from torch import nn

from edgedl.compress.adapters.onnx.import_onnx import check_equal, import_onnx
from edgedl.compress.adapters.onnx.network import OnnxNetwork
from edgedl.compress.subject.given_task import CALIBRATION, GivenTask
from edgedl.compress.subject.subject import Subject
from edgedl.compress.subject.unwrap import unwrap
from edgedl.runtime.bundle.array_file import open_arrays
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.sources.open_source import names_source, open_source

# Samples that an imported file is compared on with ONNX Runtime.
COMPARED = 2


def subject_of(module: nn.Module, data: str, name: str = "") -> Subject:
    """Return the subject of a module and of data by name.

    Labels and outputs decide which score suits; what was assumed stands in the task's notes.

    Args:
        module: trained, on the CPU.
        data: see ``open_source``, or a file of arrays that calibrate.
        name: of the network; its class if nothing is said.

    Raises:
        BadInputError: there is no such data, or it does not fit the module.
    """
    module = unwrap(module).eval()
    name = name or type(module).__name__
    if Path(data).exists() or not (names_source(data) or ":" in data):
        return Subject(name, module, GivenTask(name, module, calibrating(data)), data=data)
    source = open_source(data)
    task = GivenTask(
        name,
        module,
        source.splits,
        classes=source.classes,
        preprocessing=source.preprocessing,
    )
    task.notes = (*source.notes, *task.notes)
    return Subject(name, module, task, data=data)


def onnx_subject(path: Path, data: str) -> Subject:
    """Return the subject of a float ONNX file and of data by name.

    Raises:
        BadInputError: the file cannot be imported, differs from what ONNX Runtime computes, or does
            not fit the data.
    """
    subject = subject_of(import_onnx(path), data, path.stem)
    check_file(subject, path)
    return subject


def check_file(subject: Subject, path: Path) -> None:
    """Compare the network of an ONNX file with ONNX Runtime on the first calibration samples.

    Raises:
        BadInputError: they differ.
    """
    network = cast(OnnxNetwork, subject.module)
    batch = next(iter(subject.task.batches(CALIBRATION, COMPARED)))
    check_equal(network, path, batch.inputs)


def calibrating(path: str) -> dict[str, object]:
    """Return the samples of a .npy or .npz file, or of all in a folder, without labels.

    Raises:
        BadInputError: there are none, or they cannot be read.
    """
    place = Path(path)
    files = (
        sorted(p for p in place.iterdir() if p.suffix in (".npy", ".npz"))
        if place.is_dir()
        else [place]
    )
    if not files or not all(file.is_file() for file in files):
        raise BadInputError(
            f"there are no calibration samples in '{path}': give a .npy or .npz file, a folder of "
            "them, or data by name such as imagefolder:DIR?size=N"
        )
    found = [open_arrays(file) for file in files]
    return {CALIBRATION: [arrays.get("", arrays) for arrays in found]}
