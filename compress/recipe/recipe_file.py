"""Recipes as YAML files. Every key is checked; errors name the line."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edgedl.compress.recipe.recipe import Budget, Recipe, check_order, joined
from edgedl.compress.recipe.shipped_recipes import (
    check_recipe_name,
    recipe_parts,
    shipped_recipes,
    shipped_text,
)
from edgedl.compress.recipe.stages import STAGES
from edgedl.compress.stage import Stage, stage_name
from edgedl.compress.user_code import load_user_class, names_user_code
from edgedl.compress.yaml_text import read_yaml
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant


def load_recipe(reference: str) -> Recipe:
    """Return a shipped recipe by name, one read from a YAML file, or several joined by "+".

    Raises:
        BadInputError: no such recipe, not YAML, a key or value is wrong, or the stages are in an
            impossible order.

    >>> [type(s).__name__ for s in load_recipe("prune_ch50+static_w8c_a8").stages]
    ['PruneChannels', 'FineTune', 'QuantizeStatic']
    """
    recipes = [_load(part, ()) for part in recipe_parts(reference)]
    recipe = recipes[0] if len(recipes) == 1 else joined(recipes)
    check_order(recipe)
    return recipe


def _load(reference: str, outer: tuple[str, ...]) -> Recipe:
    """Return one recipe; ``outer`` are those that it is part of."""
    if reference in outer:
        raise BadInputError(f"the recipe {reference} is part of itself")
    check_recipe_name(reference)
    if reference in shipped_recipes():
        return parse_recipe(shipped_text(reference), reference, outer)
    path = Path(reference)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{reference} is not a text file in UTF-8") from error
    return parse_recipe(text, reference, outer, path.parent)


def parse_recipe(
    text: str, source: str, outer: tuple[str, ...] = (), folder: Path = Path()
) -> Recipe:
    """Read a recipe from YAML.

    Args:
        text: its text.
        source: what errors call it.
        outer: recipes that it is part of.
        folder: that paths of the user's stages begin in.

    Raises:
        BadInputError: with the source's line, and the nearest valid name of an unknown key.
    """
    tree, content = read_yaml(text, source)
    _check_stage_names(content, tree, source)
    items = content.get("stages") if isinstance(content, dict) else None
    parts = []
    for index, item in enumerate(items if isinstance(items, list) else []):
        where = _Place(("stages", index), tree, source)
        part = where.convert(item, dict[str, Any], ("stage", "recipe"))
        parts.append(_part(part, where, (*outer, source), folder))
    keys = tuple(f.encode_name for f in msgspec.structs.fields(_Written))
    written = _Place((), tree, source).convert(content, _Written, keys)
    return msgspec.structs.replace(joined(parts), description=written.description)


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    """A recipe as YAML has it: each item a stage, or the name of another recipe."""

    description: str
    stages: tuple[dict[str, Any], ...] = ()


class _Reference(msgspec.Struct, forbid_unknown_fields=True):
    """All of another recipe's stages."""

    recipe: str


@dataclass(frozen=True)
class _Place:
    """Where in a file a value stands, for errors."""

    path: tuple[str | int, ...]
    tree: yaml.Node | None
    source: str

    def inside(self, key: str) -> "_Place":
        """Return the place of a key's value."""
        return replace(self, path=(*self.path, key))

    def error(self, text: str) -> BadInputError:
        """Return an error that names the line."""
        return BadInputError(f"{self.source}, line {_line(self.tree, list(self.path))}: {text}")

    def convert(self, value: Any, kind: Any, keys: tuple[str, ...] = ()) -> Any:
        """Return a value as a type.

        Args:
            value: what is written.
            kind: what it should be.
            keys: that a mapping can have, for errors.

        Raises:
            BadInputError: it is none; the message names the line.
        """
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise self._explained(str(error), kind, keys) from error

    def _explained(self, message: str, kind: Any, keys: tuple[str, ...]) -> BadInputError:
        """Turn a validation message with a ``$.key[0]`` path into one with a line."""
        text, _, location = message.partition(" - at ")
        steps = re.findall(r"\.(\w+)|\[(\d+)\]", location)
        path = (*self.path, *(int(index) if index else key for key, index in steps))
        unknown = re.search(r"unknown field `(.+)`", text)
        if unknown:
            key = unknown.group(1)
            text = f"unknown key '{key}'{meant(key, keys)}"
            path = (*path, key)
        elif path and isinstance(path[-1], str):
            text = f"'{path[-1]}': {text}{_choices(kind, path[-1])}"
        return replace(self, path=path).error(text)


def _part(item: dict[str, Any], where: _Place, outer: tuple[str, ...], folder: Path) -> Recipe:
    """Return one item of a recipe, as a recipe."""
    if "recipe" in item:
        reference = where.convert(item, _Reference, ("stage", "recipe"))
        return joined([_load(part, outer) for part in reference.recipe.split("+")])
    kind = _stage_class(item["stage"], where.inside("stage"), folder)
    names = [f.encode_name for f in msgspec.structs.fields(kind)]
    settings = {key: value for key, value in item.items() if key != "budget"}
    stage = where.convert(
        {**settings, "stage": stage_name(kind)}, kind, ("stage", *names, "budget")
    )
    if "budget" not in item:
        return Recipe("", (stage,))
    keys = tuple(f.encode_name for f in msgspec.structs.fields(Budget))
    budget = where.inside("budget").convert(item["budget"], Budget, keys)
    return Recipe("", (stage,), {0: budget})


def _stage_class(name: Any, where: _Place, folder: Path) -> type[Stage]:
    """Return the class that a recipe names: one of edgedl's own, or the user's ``file.py:Class``.

    Raises:
        BadInputError: there is none of that name, or it is no stage.
    """
    valid = f"; the stages are: {', '.join(STAGES)}"
    if not isinstance(name, str):
        raise where.error(f"Expected `str`, got `{type(name).__name__}`{valid}")
    if not names_user_code(name):
        if name not in STAGES:
            raise where.error(
                f"unknown stage '{name}'{meant(name, STAGES)}, or file.py:Class for your own"
            )
        return STAGES[name]
    try:
        found = load_user_class(name, folder)
    except BadInputError as error:
        raise where.error(str(error)) from error
    if not issubclass(found, Stage) or found is Stage:
        raise where.error(f"{name} is not a stage: make it a subclass of edgedl.Stage")
    return found


def _check_stage_names(content: Any, tree: yaml.Node | None, source: str) -> None:
    """Refuse a stage that does not say which one it is."""
    stages = content.get("stages") if isinstance(content, dict) else None
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(stage, dict) and not stage.keys() & {"stage", "recipe"}:
            line = _line(tree, ["stages", index])
            names = ", ".join(STAGES)
            raise BadInputError(f"{source}, line {line}: no key 'stage'; it is one of {names}")


def _choices(kind: Any, key: str) -> str:
    """Return the values that a stage's key can have, if they are few."""
    found = msgspec.inspect.type_info(kind)
    fields = found.fields if isinstance(found, msgspec.inspect.StructType) else ()
    choices = next((f.type for f in fields if f.encode_name == key), None)
    if not isinstance(choices, msgspec.inspect.LiteralType):
        return ""
    return f"; it can be {', '.join(str(value) for value in choices.values)}"


def _line(tree: yaml.Node | None, path: list[str | int]) -> int:
    """Return the line (from 1) of the deepest node on a path."""
    line = 1
    node = tree
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == step]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line
