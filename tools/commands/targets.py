"""``edgedl targets``: what files are made for."""

import click
import msgspec

from edgedl.compress.targets.described import Target, described_target, target_names
from edgedl.tools.terminal.parameter_types import TARGET
from edgedl.tools.terminal.rows import rows


@click.command()
@click.argument("name", required=False, type=TARGET)
@click.option("--json", "as_json", is_flag=True, help="Print the descriptions as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the targets that '--target' takes, or show the one called NAME.

    NAME can be a YAML file that describes your own device; docs/quantization.md explains its
    keys.
    """
    if name is not None:
        target = described_target(name)
        click.echo(msgspec.json.encode(target) if as_json else _described(target))
        return
    every = [described_target(known) for known in target_names()]
    if as_json:
        records = [
            {key: getattr(t, key) for key in ("name", "runtime", "description")} for t in every
        ]
        click.echo(msgspec.json.encode(records))
    else:
        click.echo(rows([(t.name, t.runtime, t.description) for t in every]))


def _described(target: Target) -> str:
    lines = [
        ("name", target.name),
        ("for", target.description),
        ("runtime", target.runtime),
        ("precisions", ", ".join(target.precisions)),
        ("activations", f"{target.activations}, zero points {_zero_points(target)}"),
        ("weights", f"int8 with {target.weight_bits} bits"),
        ("channels", f"pruned widths are multiples of {target.channel_multiple}"),
        ("in integers", f"{len(target.integer_operators)} operators; the others in float"),
        *((f"no {precision}", why) for precision, why in target.refused.items()),
    ]
    return rows(lines)


def _zero_points(target: Target) -> str:
    return "are 0" if target.symmetric else "as the range wants them"
