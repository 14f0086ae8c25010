"""What every stage has from its base: order by phases, settings, history, the estimate."""

from typing import ClassVar

import msgspec
import pytest
from own_stage import Round, Scale, Thin
from tiny import make_subject

from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.milder import difference, milder
from edgedl.compress.recipe.recipe import Recipe, check_order, fit, keep_float
from edgedl.compress.recipe.stages import STAGES
from edgedl.compress.sparsify.sparsify import Sparsify
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, Phase, Trait, begin
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import BadInputError

MADE = Trait("what Makes made")


class Makes(Stage, frozen=True):
    gives: ClassVar[frozenset[Trait]] = frozenset({MADE})


class Breaks(Stage, frozen=True):
    undoes: ClassVar[frozenset[Trait]] = frozenset({MADE})


class ToIntegers(Stage, frozen=True):
    works_on = Phase.FLOAT
    yields = Phase.QUANTIZED

    keep_float: tuple[str, ...] = ()


class OnIntegers(Stage, frozen=True):
    works_on = yields = Phase.QUANTIZED


class ForKernels(Stage, frozen=True):
    bits: int = 8

    def fit(self, targets: tuple[Target, ...], judged_on: tuple[Target, ...] = ()) -> "ForKernels":
        return ForKernels(min(t.channel_multiple for t in targets))


class Odd(Stage, frozen=True):
    widths: tuple[int, ...] = (3, 5)
    names: list[str] = msgspec.field(default_factory=list)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        return state, {"found": 1.5}


@pytest.mark.parametrize(
    "stages",
    [
        (Round(), QuantizeStatic()),
        (PruneChannels(), Round(), Equalize(), QuantizeStatic(), RoundWeights()),
        (Scale(), Thin(), FineTune(), Equalize()),
        (Equalize(), Round(), ClusterWeights()),
        (Makes(), Breaks, Makes())[::2],
        (Breaks(), Makes()),
        (Equalize(), ToIntegers(), OnIntegers(), RoundWeights()),
    ],
)
def test_possible_orders(stages: tuple[Stage, ...]) -> None:
    check_order(Recipe("", stages))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            (QuantizeStatic(), Round()),
            "the stage round works on the float graph: the recipe needs it before quantize_static",
        ),
        (
            (Round(), Scale()),
            "scale works on the network as it was trained: the recipe needs it before round",
        ),
        ((Makes(), Breaks()), "Breaks would undo what Makes made: the recipe needs it before Make"),
        ((Sparsify(), PruneChannels()), "would undo the pattern of the zeros"),
        ((ClusterWeights(), Equalize()), "would undo the sharing of weights"),
        ((ToIntegers(), QuantizeDynamic()), "would quantize what ToIntegers has quantized"),
        ((QuantizeStatic(), RoundWeights(), ToIntegers()), "would quantize what quantize_static"),
        (
            (OnIntegers(),),
            "OnIntegers works on a quantized network: .* stage that quantizes",
        ),
    ],
)
def test_impossible_orders_are_refused_with_the_reason(
    stages: tuple[Stage, ...], said: str
) -> None:
    with pytest.raises(BadInputError, match=said):
        check_order(Recipe("", stages))


def test_the_same_order_holds_where_stages_are_applied_one_by_one(float_state: ModelState) -> None:
    state = Round().apply(float_state)
    assert [s.name for s in state.stages] == [e.stage for e in state.history] == ["round"]
    with pytest.raises(BadInputError, match="needs it before round"):
        Scale().apply(state)


@pytest.mark.parametrize("wrong", [object(), Scale, "scale"])
def test_what_is_no_stage_is_refused(wrong: object) -> None:
    with pytest.raises(BadInputError, match="is not a stage: give an object of a subclass of"):
        Recipe("", (wrong,))  # type: ignore[arg-type]


def test_a_stage_without_a_change_says_so(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="Makes does not say what it does"):
        Makes().apply(float_state)


class Faulty(Stage, frozen=True):
    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        raise ZeroDivisionError("by zero")


class Forgetful(Stage, frozen=True):
    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        return state  # type: ignore[return-value]


def test_a_fault_of_a_users_is_said_with_its_line(float_state: ModelState) -> None:
    with pytest.raises(
        BadInputError, match=r"test_stage\.py, line \d+: ZeroDivisionError: by zero"
    ):
        Faulty().apply(float_state)
    with pytest.raises(BadInputError, match=r"test_stage\.py: TypeError: cannot unpack"):
        Forgetful().apply(float_state)


def test_settings_are_recorded_as_a_history_can_hold_them(float_state: ModelState) -> None:
    (entry,) = Odd(names=["a"]).apply(float_state).history
    assert entry.settings == {"widths": "(3, 5)", "names": ("a",), "found": 1.5}


def test_a_users_settings_are_checked() -> None:
    with pytest.raises(BadInputError, match=r"scale, factor = 2: .*<= 1"):
        Scale(factor=2)


def test_a_users_stage_is_milder_and_fits_and_keeps_float() -> None:
    less = milder((Scale(0.5), Round()))
    assert less == (Scale(0.75), Round())
    assert difference((Scale(0.5), Round()), less) == "factor 0.75"
    assert fit(Recipe("", (ForKernels(64),)), (ORT, TFLITE)).stages == (
        ForKernels(min(ORT.channel_multiple, TFLITE.channel_multiple)),
    )
    kept = keep_float(Recipe("", (Round(), ToIntegers(("a",)))), ("b",))
    assert kept.stages == (Round(), ToIntegers(("a", "b")))


def test_names_are_given_once_and_every_stage_says_what_it_works_on() -> None:
    assert list(STAGES) == [stage().name for stage in STAGES.values()]
    for stage in STAGES.values():
        assert stage.works_on <= stage.yields


def test_a_stage_with_samples_is_estimated_by_fewer_of_them() -> None:
    seen: list[int] = []

    class Counted(Thin, frozen=True):
        batch_size: int = 4

        def change(self, state: ModelState) -> tuple[ModelState, Found]:
            seen.append(self.samples)
            return state, {}

    state = begin(make_subject())
    assert not Counted(samples=400).estimate(state).whole
    # The first is not timed: it pays for what is loaded once.
    assert seen == [4, 8, 24]
    assert Counted(samples=8).estimate(state).whole
    assert seen[3:] == [4, 8, 8]
    assert Scale().estimate(state).whole
