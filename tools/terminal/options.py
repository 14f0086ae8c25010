"""Options that several commands share: read once, with one error text."""

import functools
from collections.abc import Callable
from pathlib import Path

import click

from edgedl.tools.terminal.parameter_types import RECIPE

recipe_option = click.option(
    "--recipe",
    type=RECIPE,
    metavar="RECIPE",
    default="default",
    show_default=True,
    help="Name or YAML file; 'default' chooses the recipe that suits the network.",
)
device_option = click.option(
    "--device",
    metavar="DEVICE",
    help="Device to train networks on: cpu (default), cuda, cuda:1, mps, ...",
)
weights_option = click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Safetensors file with your own weights of a reference model.",
)


def data_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add --data and --calibration, which the command gets as ``data``; one of them is given."""

    @click.option(
        "--data",
        metavar="KIND:PATH",
        help="Data of a SUBJECT that is a module or an ONNX file: imagefolder:DIR?size=N, "
        "images:DIR?size=N, csv:FILE?target=COLUMN or npz:FILE.",
    )
    @click.option(
        "--calibration",
        metavar="FILE",
        help="Instead of --data: samples in a .npy or .npz file, by the inputs' names, or a folder "
        "of such files; the score is how near each file is to the float network.",
    )
    @functools.wraps(command)
    def with_data(data: str | None, calibration: str | None, **rest: object) -> object:
        if data is not None and calibration is not None:
            raise click.UsageError("Give --data or --calibration.", click.get_current_context())
        return command(data=data or calibration, **rest)

    return with_data
