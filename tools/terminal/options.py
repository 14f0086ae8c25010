"""Options that several commands share: read once, with one error text."""

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
