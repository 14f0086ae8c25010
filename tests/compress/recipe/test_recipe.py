"""Recipes: what is read, and errors that name the line and the nearest valid name."""

from pathlib import Path

import pytest

from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import check_order, keep_float
from edgedl.compress.recipe.recipe_file import load_recipe, parse_recipe
from edgedl.compress.recipe.shipped_recipes import shipped_recipes
from edgedl.compress.recipe.stages import STAGES
from edgedl.runtime.errors import BadInputError

GOOD = """\
description: mine
stages:
  - stage: quantize_static
    samples: 64
    observer: minmax
"""


def refusal(text: str) -> str:
    with pytest.raises(BadInputError) as caught:
        parse_recipe(text, "mine.yaml")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_settings_are_read_and_the_others_have_defaults() -> None:
    recipe = parse_recipe(GOOD, "mine.yaml")
    assert recipe.description == "mine"
    assert recipe.stages == (QuantizeStatic(samples=64, batch_size=32, observer="minmax"),)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid(name: str) -> None:
    assert load_recipe(name).description


def test_the_shipped_ones() -> None:
    assert load_recipe("float").stages == ()
    assert load_recipe("static_w8c_a8").stages == (QuantizeStatic(512, 32, "mse"),)
    assert load_recipe("static_w8c_a8_rounded").stages == (
        QuantizeStatic(512, 32, "mse"),
        RoundWeights(128, 16),
    )


def test_a_file_is_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert load_recipe(str(path)) == parse_recipe(GOOD, "mine.yaml")


def test_every_stage_can_be_named_in_a_recipe() -> None:
    for name, stage in STAGES.items():
        (found,) = parse_recipe(f"description: x\nstages: [{{stage: {name}}}]", "x").stages
        assert isinstance(found, stage)


@pytest.mark.parametrize(
    ("old", "new", "line", "parts"),
    [
        ("samples", "sampels", 4, ["unknown key 'sampels'", "did you mean 'samples'?"]),
        ("observer", "observers", 5, ["unknown key 'observers'", "did you mean 'observer'?"]),
        (
            "samples",
            "zzz",
            4,
            ["unknown key 'zzz'", "known: stage, samples, batch_size, observer"],
        ),
        ("description", "descripton", 1, ["descripton", "did you mean 'description'?"]),
        ("quantize_static", "quantise", 3, ["quantise", "known: prune_channels"]),
        ("64", "many", 4, ["Expected `int`", "got `str`"]),
        ("64", "1.5", 4, ["Expected `int`", "got `float`"]),
        ("64", "0", 4, ["'samples': ", ">= 1"]),
        ("64", "-3", 4, [">= 1"]),
        ("minmax", "largest", 5, ["'observer': ", "'largest'", "it can be ", "moving_average"]),
        ("mine", "[1, 2]", 1, ["Expected `str`"]),
        (
            "stages:",
            "stages:\n  - {stage: factorize, ratio: 0.5, speedup: 2}",
            3,
            ["takes one of energy, ratio and speedup, not ratio and speedup"],
        ),
    ],
)
def test_errors_name_the_line_and_what_is_valid(
    old: str, new: str, line: int, parts: list[str]
) -> None:
    message = refusal(GOOD.replace(old, new))
    assert message.startswith(f"mine.yaml, line {line}: ")
    for part in parts:
        assert part in message


def test_the_line_is_that_of_the_right_stage() -> None:
    second = "  - stage: quantize_static\n    samples: 64\n\n    # a comment\n    batchsize: 8\n"
    message = refusal(GOOD + second)
    assert message.startswith("mine.yaml, line 10: ")
    assert "did you mean 'batch_size'?" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("stages: []", "missing required field `description`"),
        ("description: x\nstages: {}", "Expected `array`"),
        ("description: x\nstages: [quantize_static]", "line 2"),
        ("", "Expected `object`"),
        ("- a\n- b", "Expected `object`"),
    ],
)
def test_other_shapes_are_refused(text: str, part: str) -> None:
    assert part in refusal(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("description: x\nstages: [", 2),
        ("description: x\n  stages: []", 2),
        ("description: 'x", 1),
        ("\tdescription: x", 1),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: str, line: int) -> None:
    message = refusal(text)
    assert "not YAML" in message
    assert message.startswith(f"mine.yaml, line {line}")


def test_python_objects_in_yaml_are_not_made() -> None:
    assert "not YAML" in refusal("description: !!python/object/apply:os.getcwd []")


def test_the_trained_ones_differ_in_what_they_learn_from() -> None:
    untrained = load_recipe("static_w8c_a8_rounded").stages
    for name, distil in (("qat_w8c_a8", 0.9), ("qat_w8c_a8_distilled", 1)):
        *before, train = load_recipe(name).stages
        assert tuple(before) == untrained
        assert train == TrainQuantized(distil=distil)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"no recipe 'static_w8_a8', did you mean 'static_w8c"):
        load_recipe("static_w8_a8")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(BadInputError, match="known: " + ", ".join(shipped_recipes())):
        load_recipe("nothing_like_it")


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no recipe"):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("description: x\nstages:\n  - samples: 3\n", "line 3: no key 'stage'"),
        ("description: x\ndescription: y\n", "line 2: the key 'description' is given twice"),
        (
            "description: x\nstages:\n  - stage: quantize_static\n    samples: 3\n    samples: 4\n",
            "line 5: the key 'samples' is given twice",
        ),
    ],
)
def test_what_yaml_would_take_in_silence_is_refused(text: str, part: str) -> None:
    with pytest.raises(BadInputError, match=part):
        parse_recipe(text, "mine.yaml")


def test_a_second_quantizer_is_refused() -> None:
    second = "  - {stage: quantize_weights, bits: 4}\n"
    with pytest.raises(BadInputError, match="would quantize what quantize_static has quantized"):
        check_order(parse_recipe(GOOD + second, "mine.yaml"))


def test_recipe_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("description: Größe\nstages: []\n".encode("latin-1"))
    with pytest.raises(BadInputError, match="UTF-8"):
        load_recipe(str(path))


def test_layers_kept_in_float_are_added_where_the_recipe_quantizes() -> None:
    recipe = load_recipe("static_w8c_a8_rounded")
    named = keep_float(keep_float(recipe, ("fc",)), ("blocks.*", "stem"))
    assert named.stages[0].keep_float == ("fc", "blocks.*", "stem")
    assert named.stages[1:] == recipe.stages[1:]
    assert keep_float(recipe, ()) is recipe


@pytest.mark.parametrize("name", ["float", "dynamic_w8_afp32"])
def test_nothing_is_kept_from_a_recipe_that_does_not_calibrate(name: str) -> None:
    with pytest.raises(BadInputError, match="cannot keep 'fc' in float"):
        keep_float(load_recipe(name), ("fc",))
    assert keep_float(load_recipe(name), ()) == load_recipe(name)
