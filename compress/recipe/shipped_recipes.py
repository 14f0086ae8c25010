"""The names and texts of recipes, without torch: the command line lists and checks them."""

from importlib.resources import files
from pathlib import Path

import msgspec
import yaml

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant

# Takes the recipe that suits the network's layers; no file has this name.
DEFAULT = "default"


class _Described(msgspec.Struct):
    """What a recipe says about itself; its stages are not looked at."""

    description: str


def shipped_recipes() -> list[str]:
    """Return the names of the recipes inside the package."""
    folder = files("edgedl.compress.recipe.shipped")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def shipped_text(name: str) -> str:
    """Return the YAML of a recipe inside the package.

    Raises:
        BadInputError: there is none of that name.
    """
    names = shipped_recipes()
    if name not in names:
        raise BadInputError(f"there is no recipe '{name}'{meant(name, names)}")
    return (files("edgedl.compress.recipe.shipped") / f"{name}.yaml").read_text(encoding="utf-8")


def recipe_description(name: str) -> str:
    """Return the one line that a shipped recipe says about itself.

    >>> recipe_description("float")
    'No quantization; the float32 and float16 files only.'
    """
    return msgspec.convert(yaml.safe_load(shipped_text(name)), _Described).description


def recipe_parts(reference: str) -> list[str]:
    """Return the recipes that a reference joins by "+"; a file's name is taken as it is.

    >>> recipe_parts("prune_ch50+static_w8c_a8")
    ['prune_ch50', 'static_w8c_a8']
    """
    return [reference] if Path(reference).is_file() else reference.split("+")


def check_recipe_name(name: str) -> None:
    """Refuse what is neither a shipped recipe nor a file.

    Raises:
        BadInputError: it has the nearest name.
    """
    if name not in shipped_recipes() and not Path(name).is_file():
        raise BadInputError(
            f"there is no recipe '{name}'{meant(name, shipped_recipes())}, or give a YAML file"
        )
