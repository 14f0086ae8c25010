"""``edgedl recipes`` against the files themselves."""

import json
from pathlib import Path

import pytest
import yaml
from command import Run

from edgedl.compress.recipe.recipe_file import load_recipe, parse_recipe
from edgedl.compress.recipe.shipped_recipes import DEFAULT, shipped_recipes

SHIPPED = Path(__file__).resolve().parents[3] / "compress/recipe/shipped"


def test_list_has_one_line_each(edgedl: Run) -> None:
    done = edgedl("recipes")
    assert done.returncode == 0
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    files = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    assert [name for name, _ in lines] == [DEFAULT, *files]
    for name, text in lines[1:]:
        assert text == load_recipe(name).description


def test_list_as_json(edgedl: Run) -> None:
    found = json.loads(edgedl("recipes", "--json").stdout)
    assert [one["name"] for one in found] == [DEFAULT, *shipped_recipes()]
    assert all(one["description"] for one in found)
    assert json.loads(edgedl("recipes", "fast", "--json").stdout) == next(
        one for one in found if one["name"] == "fast"
    )


@pytest.mark.parametrize("name", ["fast", "best", "static_w8c_a8"])
def test_what_is_printed_is_the_recipe(edgedl: Run, name: str) -> None:
    printed = edgedl("recipes", name).stdout
    assert yaml.safe_load(printed) == yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    assert parse_recipe(printed, "printed") == load_recipe(name)


def test_the_default_is_told(edgedl: Run) -> None:
    done = edgedl("recipes", DEFAULT)
    assert done.returncode == 0
    assert "suits the network's layers" in done.stdout
