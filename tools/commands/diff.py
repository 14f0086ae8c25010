"""``edgedl diff``: two model files, layer by layer."""

from pathlib import Path

import click
import msgspec

from edgedl.compress.modelfile.align import Match, align
from edgedl.compress.modelfile.layer import FileLayer
from edgedl.compress.modelfile.read import read_layers
from edgedl.runtime.errors import BadInputError
from edgedl.tools.report.table import to_markdown


@click.command()
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Also show the layers that are the same.")
@click.option("--json", "as_json", is_flag=True, help="Print the matched layers.")
def command(first: Path, second: Path, everything: bool, as_json: bool) -> None:
    """Compare the layers of two .onnx or .tflite files: types, scales, zero points, bytes.

    int8 and uint8 zero points that differ by 128 count as the same.
    """
    matches = align(_read(first), _read(second))
    if as_json:
        click.echo(msgspec.json.encode(matches))
        return
    shown = [m for m in matches if everything or m.differences()]
    click.echo(f"A: {first}\nB: {second}")
    if shown:
        click.echo(to_markdown(["A", "B", "difference"], [_line(m) for m in shown]))
    paired = [m for m in matches if m.first is not None and m.second is not None]
    same = sum(not m.differences() for m in paired)
    click.echo(
        f"{same} of {len(paired)} matched layers are the same, {len(matches) - len(paired)} "
        "are in one file only"
    )


def _read(path: Path) -> list[FileLayer]:
    if path.is_dir():
        raise BadInputError(f"{path} is a folder: give two files, such as those of a bundle")
    if not path.is_file():
        raise BadInputError(f"there is no file {path}")
    return read_layers(path.read_bytes(), str(path))


def _line(match: Match) -> list[str]:
    sides = [
        "" if layer is None else f"{layer.operator} {layer.name}"
        for layer in (match.first, match.second)
    ]
    return [*sides, "; ".join(match.differences()) or "same"]
