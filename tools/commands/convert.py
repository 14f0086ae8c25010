"""``edgedl convert``: a quantized ONNX file from elsewhere, for another runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedl.runtime.backends.runtimes import RUNTIMES, open_backend
from edgedl.runtime.bundle.files import atomic_write
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.inputs import read_arrays
from edgedl.runtime.tensors import check_input
from edgedl.tools.terminal.parameter_types import TARGETS

if TYPE_CHECKING:
    from edgedl.compress.convert.foreign import ForeignNetwork
    from edgedl.compress.targets.target import Target
    from edgedl.runtime.backend import Array

SAMPLES = 64
SUFFIX = ".onnx"
READ_ONNX = [name for name in RUNTIMES if open_backend(name).suffix == SUFFIX]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    type=TARGETS,
    metavar="TARGETS",
    default=",".join(READ_ONNX),
    show_default=True,
    help="Names or YAML files.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Arrays to compare on: a .npz, or a .npy per input in the file's order; noise otherwise.",
)
def command(file: Path, targets: "tuple[Target, ...]", out: Path, inputs: tuple[Path, ...]) -> None:
    """Convert a quantized ONNX FILE for other runtimes, with the ranges that it has.

    FILE is in QDQ format, made by any tool. Each result is compared with it; both are computed
    operator by operator in ONNX Runtime. There is no calibration: tensors without a range in FILE
    stay float.
    """
    for item in targets:
        backend = open_backend(item.runtime)
        if backend.suffix != SUFFIX:
            raise BadInputError(
                f"an ONNX file cannot be written for {backend.label}: compress the torch network "
                "for it"
            )
    content = _read(file)
    paths = {item.name: out / f"{file.stem}.{item.name}{SUFFIX}" for item in targets}
    there = next((path for path in paths.values() if path.exists()), None)
    if there is not None:
        raise BadInputError(f"{there} already exists: remove it, or give another --out")
    missing = next((path for path in inputs if not path.is_file()), None)
    if missing is not None:
        raise BadInputError(f"there is no file {missing}")

    from edgedl.compress.convert.compare import agreement, noise_for
    from edgedl.compress.convert.foreign import read_foreign
    from edgedl.compress.convert.requantize import requantize
    from edgedl.compress.convert.unsigned_weights import without_saturation

    network = read_foreign(content, str(file))
    arrays = _load(inputs, network) if inputs else noise_for(content, network, SAMPLES)
    if not inputs:
        # Noise drives activations out of the ranges that real samples gave.
        click.echo(
            "compared on noise, which saturates more than real data: give real data with --input",
            err=True,
        )
    for item in targets:
        name, path = item.name, paths[item.name]
        made = without_saturation(requantize(network, item), network, item)
        for note in made.notes:
            click.echo(f"{name}: {note}", err=True)
        _check(made.content, item)
        found = agreement(content, made.content, arrays)
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as written:
            written.write(made.content)
        click.echo(f"{path}: {found.describe()}")
        if found.far:
            click.echo(f"warning: {path} is far from {file}: {_advice(bool(inputs))}", err=True)


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise BadInputError(f"there is no file {file}")
    if file.suffix == ".tflite":
        raise BadInputError(
            f"{file} is a TFLite file, which cannot be written for another runtime; 'edgedl "
            "inspect' and 'edgedl diff' read it"
        )
    return file.read_bytes()


def _load(paths: tuple[Path, ...], network: "ForeignNetwork") -> "tuple[Array, ...]":
    """Return the arrays that are given for a network's inputs, each one checked."""
    from edgedl.compress.export.onnx.write import describe_onnx

    specs, _ = describe_onnx(network.model.SerializeToString())
    if len(paths) == 1:
        arrays = read_arrays(paths[0], [spec.name for spec in specs])
    elif len(paths) == len(specs):
        arrays = tuple(read_arrays(p, [s.name])[0] for p, s in zip(paths, specs, strict=True))
    else:
        raise BadInputError(f"the file has {len(specs)} inputs, {len(paths)} arrays were given")
    checked = tuple(check_input(x, spec) for x, spec in zip(arrays, specs, strict=True))
    _check_counts(checked, network)
    return checked


def _check_counts(arrays: "tuple[Array, ...]", network: "ForeignNetwork") -> None:
    """Refuse arrays of different length for inputs whose free first axes have one name, or none."""
    counts: dict[str, list[int]] = {}
    for x, value in zip(arrays, network.model.graph.input, strict=True):
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].dim_value > 0:
            counts.setdefault(axes[0].dim_param, []).append(len(x))
    for lengths in counts.values():
        if len(set(lengths)) > 1:
            said = ", ".join(map(str, lengths))
            raise BadInputError(f"the arrays must have the same number of samples, not {said}")


def _advice(measured: bool) -> str:
    if measured:
        return "compress the float network for that runtime instead, with 'edgedl compress'"
    return "noise may be the reason: compare on real samples with --input before using it"


def _check(content: bytes, target: "Target") -> None:
    from edgedl.compress.export.exporter import exporter_of

    verdict = exporter_of(target).check(content)
    if verdict is None:
        return
    label = open_backend(target.runtime).label
    if not verdict.accepted:
        raise BadInputError(f"{label} refuses the file: {verdict.describe()}")
    click.echo(f"{target.runtime}: {verdict.describe()}")
