"""``edgedl inspect``: what is in a bundle or a model file."""

from pathlib import Path

import click
import msgspec

from edgedl.compress.modelfile.layer import FileLayer, work_of
from edgedl.compress.modelfile.read import read_layers
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.tools.report.parity import parity_markdown
from edgedl.tools.report.table import to_markdown
from edgedl.tools.terminal.parameter_types import BUNDLE_OR_FILE


@click.command()
@click.argument("path", metavar="BUNDLE|FILE", type=BUNDLE_OR_FILE)
@click.option("--layers", is_flag=True, help="Show the layers of every file of a bundle.")
@click.option("--parity", is_flag=True, help="Show how the layers of int8 files were certified.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, or the layers.")
def command(path: Path, layers: bool, parity: bool, as_json: bool) -> None:
    """Show the contents of a bundle, or the layers of a .onnx or .tflite file made by any tool.

    Each layer has its types, the grid (scale @ zero point) of its output and of its weight, its
    bytes, and its multiply-accumulates for a batch of one ("unknown" if they depend on a free size
    or a loop). Layers inside an operator are listed below it and included in its count.
    """
    if path.is_file():
        _show_layers({str(path): read_layers(path.read_bytes(), str(path))}, as_json)
        return
    bundle = Bundle.open(path)
    if layers:
        paths = {a.name: a.path for a in bundle.manifest.artifacts}
        found = {name: read_layers(bundle.read(file), file) for name, file in paths.items()}
        _show_layers(found, as_json)
    elif parity and not as_json:
        click.echo(parity_markdown(bundle.manifest))
    elif as_json:
        click.echo(msgspec.json.encode(bundle.manifest))
    else:
        _show_bundle(bundle)


def _show_bundle(bundle: Bundle) -> None:
    manifest = bundle.manifest
    click.echo(f"{manifest.name}: {manifest.task.name}, {manifest.task.metric}")
    click.echo("inputs: " + ", ".join(_describe(s) for s in manifest.inputs))
    click.echo("outputs: " + ", ".join(_describe(s) for s in manifest.outputs))
    click.echo("history: " + (" -> ".join(h.stage for h in manifest.history) or "none"))
    click.echo(f"recommended: {manifest.recommended or 'not measured'}")
    lines = [_artifact_line(a, manifest.files[a.path].size_bytes) for a in manifest.artifacts]
    click.echo(to_markdown(["artifact", "file", "bytes", "takes", "checked by"], lines))


def _artifact_line(artifact: Artifact, size_bytes: int) -> list[str]:
    return [
        artifact.name,
        artifact.path,
        str(size_bytes),
        ", ".join(_describe(s) for s in artifact.inputs),
        artifact.check or (artifact.parity.runtime if artifact.parity else "not compared"),
    ]


def _show_layers(files: dict[str, list[FileLayer]], as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(files))
        return
    header = ["layer", "operator", "output", "computes", "output grid", "weight", "bytes", "MACs"]
    for name, layers in files.items():
        click.echo(f"{name}: {len(layers)} layers")
        click.echo(to_markdown(header, [_layer_line(layer) for layer in layers]))
        size = sum(x.weight_bytes for x in layers)
        click.echo(f"{size} bytes of constants, {work_of(layers).describe()}\n")


def _layer_line(layer: FileLayer) -> list[str]:
    return [
        layer.name,
        layer.operator,
        _shape(layer.shape),
        layer.inputs,
        layer.output.describe() if layer.output else "",
        layer.weight.describe() if layer.weight else "",
        str(layer.weight_bytes) if layer.weight_bytes else "",
        "unknown" if layer.macs is None else str(layer.macs or ""),
    ]


def _describe(spec: TensorSpec) -> str:
    step = f" (scale {spec.scale:.6g}, zero point {spec.zero_point})" if spec.scale else ""
    layout = f" {spec.layout}" if spec.layout else ""
    return f"{spec.name} {spec.dtype} [{_shape(spec.shape)}]{layout}{step}"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join("N" if d is None else str(d) for d in shape)
