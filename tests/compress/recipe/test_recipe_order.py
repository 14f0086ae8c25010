"""Orders of stages that cannot be, recipes that are joined, and what is milder."""

from pathlib import Path

import pytest

from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.quantize_fp8 import QuantizeFp8
from edgedl.compress.quantize.search.mix_precision import MixPrecision
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.milder import milder
from edgedl.compress.recipe.recipe import Budget, Recipe, check_order, joined
from edgedl.compress.recipe.recipe_file import load_recipe, parse_recipe
from edgedl.runtime.errors import BadInputError

PRUNE = PruneChannels(ratio=0.75, multiple=1, importance="l2")


def test_very_small_changes_are_none() -> None:
    tiny = PruneChannels(speedup=1.0001), PruneBlocks(speedup=1.0001), Factorize(ratio=0.0001)
    assert milder(tiny) is None


def test_milder() -> None:
    assert milder((QuantizeWeights(bits=4),)) == (QuantizeWeights(bits=8),)
    assert milder((QuantizeWeights(bits=8), QuantizeStatic())) is None
    (faster,) = milder((PruneChannels(speedup=2.0),)) or ()
    assert isinstance(faster, PruneChannels)
    assert faster.speedup == 1.7


ORDERS = [
    (
        (QuantizeStatic(), PRUNE),
        "prune_channels works on the network as it was trained.*before quan",
    ),
    ((MixPrecision(),), "mix_precision works on a quantized network.*quantize_static before it"),
    ((QuantizeFp8(), RoundWeights()), "round_weights works on int8 and int8_int16 networks.*fp8"),
    (
        (QuantizeStatic(activation_bits=16), RoundWeights(), MixPrecision()),
        "mix_precision works on int8 networks.*int8_int16",
    ),
    ((QuantizeDynamic(), RoundWeights()), "round_weights works on int8 and .* dynamic"),
]


@pytest.mark.parametrize(("stages", "words"), ORDERS)
def test_impossible_orders_are_refused_before_anything_runs(stages: tuple, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        check_order(Recipe("", stages))


def test_recipes_are_joined_with_their_budgets(tmp_path: Path) -> None:
    inner = tmp_path / "inner.yaml"
    inner.write_text(
        "description: inner\nstages:\n  - stage: prune_channels\n"
        "    budget: {max_drop_pp: 1.5, retries: 0}\n"
    )
    outer = tmp_path / "outer.yaml"
    outer.write_text(
        f"description: outer\nstages:\n  - stage: prune_blocks\n  - recipe: {inner}\n"
        "  - recipe: static_w8c_a8\n"
    )
    found = load_recipe(str(outer))
    assert [type(s).__name__ for s in found.stages] == [
        "PruneBlocks",
        "PruneChannels",
        "QuantizeStatic",
    ]
    assert found.budgets == {1: Budget(1.5, retries=0)}
    assert found.description == "outer"
    twice = joined([found, Recipe("", (QuantizeStatic(),), {0: Budget(3.0)})])
    assert twice.budgets == {1: Budget(1.5, retries=0), 3: Budget(3.0)}
    outer.write_text(f"description: outer\nstages: [{{recipe: {outer}}}]\n")
    with pytest.raises(BadInputError, match="is part of itself"):
        load_recipe(str(outer))


WRONG = [
    ("{max_drop: 1}", "line 4: unknown key 'max_drop', did you mean 'max_drop_pp'"),
    ("{max_drop_pp: 101}", "line 4: 'max_drop_pp': Expected `float` <= 100"),
    ("{confidence: 0.9}", "line 4: .*missing required field `max_drop_pp`"),
]


def test_a_description_that_is_no_date_is_not_yaml() -> None:
    with pytest.raises(BadInputError, match="not YAML"):
        parse_recipe("description: 2024-13-45\nstages: []\n", "mine.yaml")


@pytest.mark.parametrize(("budget", "words"), WRONG)
def test_a_wrong_budget_names_its_line(budget: str, words: str) -> None:
    text = f"description: x\nstages:\n  - stage: prune_channels\n    budget: {budget}\n"
    with pytest.raises(BadInputError, match=words):
        parse_recipe(text, "mine.yaml")
