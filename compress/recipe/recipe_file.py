"""Recipes as YAML files. Every key is checked; errors name the line."""

import difflib
import re
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edgedl.compress.recipe.recipe import Budget, Recipe, check_order, joined
from edgedl.compress.recipe.stages import STAGES, AnyStage
from edgedl.compress.yaml_keys import refuse_repeated_keys
from edgedl.runtime.errors import BadInputError


def shipped_recipes() -> list[str]:
    """Return the names of the recipes inside the package."""
    folder = files("edgedl.compress.recipe.shipped")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(reference: str) -> Recipe:
    """Return a shipped recipe by name, one read from a YAML file, or several joined by "+".

    Raises:
        BadInputError: no such recipe, not YAML, a key or value is wrong, or the stages are in an
            impossible order.

    >>> [type(s).__name__ for s in load_recipe("prune_ch50+static_w8c_a8").stages]
    ['PruneChannels', 'FineTune', 'QuantizeStatic']
    """
    parts = [reference] if Path(reference).is_file() else reference.split("+")
    recipes = [_load(part, ()) for part in parts]
    recipe = recipes[0] if len(recipes) == 1 else joined(recipes)
    check_order(recipe)
    return recipe


def _load(reference: str, outer: tuple[str, ...]) -> Recipe:
    """Return one recipe; ``outer`` are those that it is part of."""
    if reference in outer:
        raise BadInputError(f"the recipe {reference} is part of itself")
    if reference in shipped_recipes():
        text = (files("edgedl.compress.recipe.shipped") / f"{reference}.yaml").read_text()
        return parse_recipe(text, reference, outer)
    path = Path(reference)
    if path.is_file():
        try:
            return parse_recipe(path.read_text(encoding="utf-8"), reference, outer)
        except UnicodeDecodeError as error:
            raise BadInputError(f"{reference} is not a text file in UTF-8") from error
    near = difflib.get_close_matches(reference, shipped_recipes(), 1)
    hint = f", did you mean '{near[0]}'?" if near else ":"
    raise BadInputError(
        f"there is no recipe '{reference}'{hint} there are {', '.join(shipped_recipes())}, "
        "or give a YAML file"
    )


def parse_recipe(text: str, source: str, outer: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe from YAML.

    Args:
        text: its text.
        source: what errors call it.
        outer: recipes that it is part of.

    Raises:
        BadInputError: with the source's line, and the nearest valid name of an unknown key.
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # A date that there is not, for example, is a plain ValueError.
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInputError(
            f"{source}{line}: not YAML ({getattr(error, 'problem', error)})"
        ) from error
    refuse_repeated_keys(tree, source)
    _check_stage_names(content, tree, source)
    items = content.get("stages") if isinstance(content, dict) else None
    parts = []
    for index, item in enumerate(items if isinstance(items, list) else []):
        where = _Place(("stages", index), tree, content, source)
        parts.append(_part(where.convert(item, dict[str, Any]), where, (*outer, source)))
    written = _Place((), tree, content, source).convert(content, _Written)
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
    content: Any
    source: str

    def convert(self, value: Any, kind: Any) -> Any:
        """Return a value as a type.

        Raises:
            BadInputError: it is none; the message names the line.
        """
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            message = str(error).replace(" - at `$", f" - at `${_written(self.path)}", 1)
            if " - at `" not in message:
                message += f" - at `${_written(self.path)}`"
            raise BadInputError(_explain(message, self.tree, self.content, self.source)) from error


def _written(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _part(item: dict[str, Any], where: _Place, outer: tuple[str, ...]) -> Recipe:
    """Return one item of a recipe, as a recipe."""
    if "recipe" in item:
        reference = where.convert(item, _Reference)
        return joined([_load(part, outer) for part in reference.recipe.split("+")])
    settings = {key: value for key, value in item.items() if key != "budget"}
    stage = where.convert(settings, AnyStage)
    if "budget" not in item:
        return Recipe("", (stage,))
    inside = replace(where, path=(*where.path, "budget"))
    return Recipe("", (stage,), {0: inside.convert(item["budget"], Budget)})


def _check_stage_names(content: Any, tree: yaml.Node | None, source: str) -> None:
    """Refuse a stage that does not say which one it is."""
    stages = content.get("stages") if isinstance(content, dict) else None
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(stage, dict) and not stage.keys() & {"stage", "recipe"}:
            line = _line(tree, ["stages", index])
            names = ", ".join(STAGES)
            raise BadInputError(f"{source}, line {line}: no key 'stage'; it is one of {names}")


def _explain(message: str, tree: yaml.Node | None, content: Any, source: str) -> str:
    """Turn a validation message with a ``$.stages[0].key`` path into one with a line."""
    text, _, location = message.partition(" - at ")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", location)
    path: list[str | int] = [int(index) if index else key for key, index in steps]
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        key = unknown.group(1)
        near = difflib.get_close_matches(key, _valid_keys(path, content), 1)
        hint = f", did you mean '{near[0]}'?" if near else ":"
        text = f"unknown key '{key}'{hint} there are {', '.join(_valid_keys(path, content))}"
        path = [*path, key]
    elif path and path[-1] == "stage":
        text += f"; the stages are: {', '.join(STAGES)}"
    elif path and isinstance(path[-1], str):
        text = f"'{path[-1]}': {text}{_choices(path, content)}"
    return f"{source}, line {_line(tree, path)}: {text}"


def _choices(path: list[str | int], content: Any) -> str:
    """Return the values that a stage's key can have, if they are few."""
    if path[:1] != ["stages"] or len(path) != 3:
        return ""
    stage = STAGES.get(content["stages"][path[1]].get("stage", ""))
    if stage is None:
        return ""
    found = msgspec.inspect.type_info(stage)
    fields = found.fields if isinstance(found, msgspec.inspect.StructType) else ()
    kind = next((f.type for f in fields if f.encode_name == path[2]), None)
    if not isinstance(kind, msgspec.inspect.LiteralType):
        return ""
    return f"; it can be {', '.join(str(value) for value in kind.values)}"


def _valid_keys(path: list[str | int], content: Any) -> list[str]:
    if path[-1:] == ["budget"]:
        return [f.encode_name for f in msgspec.structs.fields(Budget)]
    if path[:1] == ["stages"] and len(path) > 1:
        stage = STAGES.get(content["stages"][path[1]].get("stage", ""))
        if stage is not None:
            return ["stage", *(f.encode_name for f in msgspec.structs.fields(stage)), "budget"]
        return ["stage", "recipe"]
    return [f.encode_name for f in msgspec.structs.fields(_Written)]


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
