"""Recipes: YAML files that list stages. Every key is checked; errors name the line."""

import difflib
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.stages import STAGES, AnyStage
from edgedl.compress.target import Target, describe_target
from edgedl.runtime.errors import BadInputError


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do to a model.

    Attributes:
        description: one line for people.
        stages: applied in this order; none means that only the precision of the files differs.
    """

    description: str
    stages: tuple[AnyStage, ...] = ()


DEFAULT = "default"


def keep_float(recipe: Recipe, layers: tuple[str, ...]) -> Recipe:
    """Return the recipe with more layers kept in float where it quantizes.

    Raises:
        BadInputError: layers are named, but no stage of the recipe quantizes.
    """
    if not layers:
        return recipe

    def keep(stage: AnyStage) -> AnyStage:
        if isinstance(stage, QuantizeStatic | QuantizeFp8 | QuantizeWeights):
            return msgspec.structs.replace(stage, keep_float=(*stage.keep_float, *layers))
        return stage

    kept = _with_stages(recipe, keep)
    if kept == recipe:
        raise BadInputError(
            f"there is nothing to keep '{layers[0]}' from: the recipe has no stage "
            "quantize_static, quantize_fp8 or quantize_weights"
        )
    return kept


def fit_weights(recipe: Recipe, targets: Sequence[Target]) -> Recipe:
    """Return the recipe with no more weight bits than the kernels of every target can add up.

    The table is one for all targets, so the narrowest decides.
    """
    bits = min(describe_target(target).weight_bits for target in targets)

    def fit(stage: AnyStage) -> AnyStage:
        if isinstance(stage, QuantizeStatic):
            return msgspec.structs.replace(stage, weight_bits=min(bits, stage.weight_bits))
        return stage

    return _with_stages(recipe, fit)


def _with_stages(recipe: Recipe, change: Callable[[AnyStage], AnyStage]) -> Recipe:
    """Return the recipe with every stage changed."""
    stages = tuple(change(stage) for stage in recipe.stages)
    return recipe if stages == recipe.stages else msgspec.structs.replace(recipe, stages=stages)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes inside the package."""
    folder = files("edgedl.compress.recipes")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(reference: str) -> Recipe:
    """Return a shipped recipe by name, or one read from a YAML file.

    Raises:
        BadInputError: no such recipe, not YAML, or a key or value is wrong.
    """
    if reference in shipped_recipes():
        text = (files("edgedl.compress.recipes") / f"{reference}.yaml").read_text()
        return parse_recipe(text, reference)
    path = Path(reference)
    if path.is_file():
        try:
            return parse_recipe(path.read_text(encoding="utf-8"), reference)
        except UnicodeDecodeError as error:
            raise BadInputError(f"{reference} is not a text file in UTF-8") from error
    near = difflib.get_close_matches(reference, shipped_recipes(), 1)
    hint = f", did you mean '{near[0]}'?" if near else ":"
    raise BadInputError(
        f"there is no recipe '{reference}'{hint} there are {', '.join(shipped_recipes())}, "
        "or give a YAML file"
    )


def parse_recipe(text: str, source: str) -> Recipe:
    """Read a recipe from YAML.

    Raises:
        BadInputError: with the source's line, and the nearest valid name of an unknown key.
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BadInputError(
            f"{source}{line}: not YAML ({getattr(error, 'problem', error)})"
        ) from error
    _check_keys(tree, source)
    _check_stage_names(content, tree, source)
    try:
        return msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        raise BadInputError(_explain(str(error), tree, content, source)) from error


def _check_keys(node: yaml.Node | None, source: str) -> None:
    """Refuse a key that stands twice in one mapping; YAML would take the last in silence."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise BadInputError(f"{source}, line {line}: the key '{key.value}' stands twice")
            seen.add(key.value)
            _check_keys(value, source)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, source)


def _check_stage_names(content: Any, tree: yaml.Node | None, source: str) -> None:
    """Refuse a stage that does not say which one it is."""
    stages = content.get("stages") if isinstance(content, dict) else None
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        if isinstance(stage, dict) and "stage" not in stage:
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
    if path and path[-1] == "stage":
        text += f"; the stages are: {', '.join(STAGES)}"
    return f"{source}, line {_line(tree, path)}: {text}"


def _valid_keys(path: list[str | int], content: Any) -> list[str]:
    if path[:1] == ["stages"] and len(path) > 1:
        stage = STAGES.get(content["stages"][path[1]].get("stage", ""))
        if stage is not None:
            return ["stage", *(f.encode_name for f in msgspec.structs.fields(stage))]
        return ["stage"]
    return [f.encode_name for f in msgspec.structs.fields(Recipe)]


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
