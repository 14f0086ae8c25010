"""``edgedl explain``: what every layer's quantization costs in decibels and points, and ms."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import counted, points
from edgedl.tools.terminal.options import data_options, recipe_option, weights_option
from edgedl.tools.terminal.parameter_types import RUNTIME, SUBJECT

if TYPE_CHECKING:
    from edgedl.tools.jobs.explanation import ExplainedLayer, Explanation


@click.command()
@click.argument("subject", type=SUBJECT)
@recipe_option
@weights_option
@data_options
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Calibration samples.",
)
@click.option(
    "--time",
    "runtime",
    type=RUNTIME,
    metavar="|".join(RUNTIMES),
    help="Time the worst layers in float on this runtime; a few seconds per layer.",
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Layers to time.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print machine-readable output to stdout.")
def command(
    subject: str,
    recipe: str,
    weights: Path | None,
    data: str | None,
    samples: int,
    runtime: str | None,
    top: int,
    seed: int,
    as_json: bool,
) -> None:
    """Show the effect of quantizing each layer of SUBJECT, the most harmful layer first.

    Signal-to-noise ratios compare the network's outputs with the float network's, on calibration
    samples: with only this layer in int8, with all layers but this one, and with this layer kept
    float as 'compress --keep-float' does (int8 layers after it still round its output).
    """
    import msgspec

    from edgedl.tools.jobs.explanation import explain

    if runtime is None and _given("top"):
        raise BadInputError(
            f"--top is for layers to time: add --time {' or --time '.join(RUNTIMES)}"
        )
    found = explain(subject, recipe, weights, samples, runtime, top, seed, data)
    click.echo(msgspec.json.encode(found) if as_json else _text(found))


def _given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _text(found: "Explanation") -> str:
    from edgedl.tools.report.table import to_markdown

    header = ["layer", "operator", "MACs %", "only this, dB", "all but this, dB"]
    header += ["kept float, dB", "only this, points"]
    if found.runtime is not None:
        header += [f"float costs on {found.runtime}, ms", "latency ratio"]
    lines = [_line(layer, found.runtime is not None) for layer in found.layers]
    return "\n".join([*_summary(found), "", to_markdown(header, lines)])


def _line(layer: "ExplainedLayer", timed: bool) -> list[str]:
    from edgedl.tools.report.table import with_interval

    inside = f" (in {layer.module})" if layer.module not in ("", layer.name) else ""
    cells = [
        layer.name + inside,
        layer.operator,
        f"{100 * layer.macs_share:.1f}",
        _db(layer.only_db),
        _db(layer.all_but_db),
        "" if layer.operator == "input" else _db(layer.kept_float_db),
        points(layer.only_points),
    ]
    cost = layer.float_cost
    if cost is not None:
        cells.append(with_interval(cost.ms, cost.ci95_ms, "+.4f"))
        cells.append(with_interval(cost.ratio, cost.ci95_ratio, ".3f"))
    return cells if cost is not None or not timed else [*cells, "", ""]


def _summary(found: "Explanation") -> list[str]:
    lines = [
        f"{found.subject}, {found.recipe}, {counted(found.samples, 'calibration sample')}",
        f"all int8: {_db(found.int8_db)} dB, {found.metric} "
        f"{100 * found.float_score:.2f} -> {100 * found.int8_score:.2f} points, "
        f"loss {found.int8_loss:.3g}",
        f"the parts add up to {_db(found.sum_of_parts_db)} dB",
    ]
    if found.kept_float:
        lines.append(f"kept in float by the recipe: {', '.join(found.kept_float)}")
    if found.outcome:
        lines.append(f"mix_precision: {found.outcome}")
    if found.noise_floor is not None:
        lo, hi = found.noise_floor.ci95_ratio
        lines.append(
            f"all int8 takes {found.noise_floor.ms:.3f} ms; the same file against itself: "
            f"{found.noise_floor.ratio:.3f} [{lo:.3f}, {hi:.3f}]"
        )
    return lines


def _db(value: float | None) -> str:
    return "no noise" if value is None else f"{value:.1f}"
