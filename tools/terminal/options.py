"""Options that several commands share: read once, with one error text."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedl.runtime.errors import BadInputError

if TYPE_CHECKING:
    from edgedl.compress.targets.target import Target

MAX_THREADS = 64


def parse_targets(text: str) -> "tuple[Target, ...]":
    """Read "ort,tflite,tensorrt"; a path ending in .yaml is a target of one's own.

    Raises:
        BadInputError: there is no such target, or two would have files of the same names.

    >>> [target.name for target in parse_targets("ort, tflite")]
    ['ort', 'tflite']
    """
    from edgedl.compress.targets.target import load_target

    given: dict[str, str] = {}
    for name in dict.fromkeys(part.strip() for part in text.split(",")):
        other = given.setdefault(load_target(name).name, name)
        if other != name:
            raise BadInputError(
                f"the files of {other} and {name} would have the same names: rename one of them"
            )
    return tuple(load_target(name) for name in given.values())


def parse_threads(text: str) -> tuple[int, ...]:
    """Read "1,2".

    >>> parse_threads("1,2")
    (1, 2)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and 1 <= int(part) <= MAX_THREADS for part in parts):
        raise BadInputError(f"--threads takes numbers from 1 to {MAX_THREADS}, got '{text}'")
    return tuple(dict.fromkeys(int(part) for part in parts))


recipe_option = click.option(
    "--recipe",
    default="default",
    show_default=True,
    help="Name or YAML file; 'default' takes what suits the network.",
)
device_option = click.option(
    "--device",
    metavar="DEVICE",
    help="Where networks are trained: cpu (if nothing is said), cuda, cuda:1, mps, ...",
)
weights_option = click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Safetensors file with your own weights of a reference model.",
)
