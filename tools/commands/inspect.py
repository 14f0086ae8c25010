"""``edgedl inspect``: what is in a bundle."""

from pathlib import Path

import click
import msgspec

from edgedl.runtime.bundle import Bundle
from edgedl.runtime.manifest import TensorSpec
from edgedl.tools.report.table import to_markdown


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def command(bundle: Path, as_json: bool) -> None:
    """Show the artifacts, inputs, outputs and history of BUNDLE."""
    manifest = Bundle.open(bundle).manifest
    if as_json:
        click.echo(msgspec.json.encode(manifest))
        return
    click.echo(f"{manifest.name}: {manifest.task.name}, {manifest.task.metric}")
    click.echo("inputs: " + ", ".join(_describe(s) for s in manifest.inputs))
    click.echo("outputs: " + ", ".join(_describe(s) for s in manifest.outputs))
    click.echo("history: " + (" -> ".join(h.stage for h in manifest.history) or "none"))
    click.echo(f"recommended: {manifest.recommended or 'not measured'}")
    lines = [
        [
            a.name,
            a.path,
            str(manifest.files[a.path].size_bytes),
            ", ".join(_describe(s) for s in a.inputs),
            a.check or (a.parity.runtime if a.parity else "not compared"),
        ]
        for a in manifest.artifacts
    ]
    click.echo(to_markdown(["artifact", "file", "bytes", "takes", "checked by"], lines))


def _describe(spec: TensorSpec) -> str:
    shape = "x".join("N" if d is None else str(d) for d in spec.shape)
    step = f" (scale {spec.scale:.6g}, zero point {spec.zero_point})" if spec.scale else ""
    return f"{spec.name} {spec.dtype} [{shape}]{step}"
