"""Targets are data: what the files say, and that seven bits do not saturate without VNNI."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_kernels import INT16, pairwise_products
from small_networks import network, noise_task
from tiny import make_subject

from edgedl.compress.artifacts.build import ArtifactBuilder, BuiltArtifact
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.dynamic import QuantizeDynamic
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import Budget, Recipe, fit
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.state import ModelState
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, ORT_AVX2, TENSORRT, TFLITE
from edgedl.compress.targets.target import TARGETS, load_target, target_names
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.device import run_context
from edgedl.tools.terminal.parameter_types import parse_targets


@pytest.mark.parametrize("name", target_names())
def test_every_target_is_whole(name: str) -> None:
    target = load_target(name)
    assert target.description
    assert "int8" in target.precisions
    assert target.runtime in {t.runtime for t in TARGETS}


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(BadInputError, match="'ort_avx', did you mean 'ort_avx2'"):
        load_target("ort_avx")


def own_target(folder: Path, text: str, name: str = "pi4") -> str:
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return str(file)


def test_a_target_of_ones_own_is_like_another(tmp_path: Path) -> None:
    said = "like: ort\ndescription: a board\nchannel_multiple: 4\nweight_bits: 6\n"
    path = own_target(tmp_path, said)
    found, like = load_target(path), load_target("ort")
    changed = {"description": "a board", "channel_multiple": 4, "weight_bits": 6}
    precisions = ("int8", "dynamic_int8", "int8_weights", "int4_weights")
    assert found == msgspec.structs.replace(like, **changed, precisions=precisions, name="pi4")
    recipe = load_recipe("prune_ch50")
    assert fit(recipe, (found,)).stages[0] == PruneChannels(0.5, multiple=4)


def test_a_variant_refuses_more_and_says_why(tmp_path: Path) -> None:
    path = own_target(tmp_path, "like: tflite\ndescription: a board\nrefused:\n  int8: no luck\n")
    found, like = load_target(path), load_target("tflite")
    assert found.refused == {**like.refused, "int8": "no luck"}
    assert set(found.precisions) == {*like.precisions} - {"int8", "float32", "float16"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "like: board.yaml\ndescription: a board\n",
            "like is 'board.yaml', it must be a target",
        ),
        (
            "like: oort\ndescription: a board\n",
            "board.yaml: like is 'oort', it must be a target, did you mean 'ort'",
        ),
        (
            "like: ort\ndescription: a board\nprecisions: [int9]\n",
            "no files of 'int9' for a target like ort, did you mean 'int8'",
        ),
        ("like: ort\ndescription: a board\nprecisions: []\n", "length >= 1"),
        (
            "like: ort\nlike: tflite\ndescription: a board\n",
            "line 2: the key 'like' is given twice",
        ),
    ],
)
def test_a_variant_of_nothing_is_refused(tmp_path: Path, said: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        load_target(own_target(tmp_path, said, "board"))


def test_two_targets_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        paths.append(own_target(folder, "like: ort\ndescription: a board\n"))
    assert parse_targets(f"{paths[0]},{paths[0]}") == (load_target(paths[0]),)
    with pytest.raises(BadInputError, match="the same names: rename one"):
        parse_targets(",".join(paths))


def test_orin_has_no_fp8() -> None:
    orin, tensorrt = load_target("tensorrt_orin"), load_target("tensorrt")
    assert "fp8" in tensorrt.precisions
    assert "fp8" not in orin.precisions
    assert "FP8" in orin.refused["fp8"]


@pytest.mark.slow
@pytest.mark.parametrize("like", ["ort", "tflite"])
def test_files_for_a_target_of_ones_own(tmp_path: Path, like: str) -> None:
    said = f"like: {like}\ndescription: a board\nweight_bits: 5\nprecisions: [int8]\n"
    path = own_target(tmp_path, said, "board")
    recipe = Recipe("x", (QuantizeStatic(32, 32),))
    folder = tmp_path / "bundle"
    folder.mkdir()
    made = compress(make_subject(), recipe, (load_target(like), load_target(path)), folder)
    assert not made.refusals
    names = {artifact.name: artifact.path for artifact in made.bundle.manifest.artifacts}
    # The same file is there once.
    assert names["board-int8"] == names[f"{like}-int8"]
    # The table is one for all targets, so both have the fewest bits.
    assert made.bundle.manifest.history[0].settings["weight_bits"] == 5


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("like: ort", "pi4", "describes no target: .*`description`.* the keys are like, desc"),
        ("like: ort\ndescription: x\ncolour: 1", "pi4", "unknown field `colour`; the keys"),
        ("like: ort\ndescription: x\nrefusd: {}", "pi4", "did you mean 'refused'. the keys are"),
        ("like: ort\ndescription: x\nweight_bits: 33", "pi4", "<= 8"),
        ("like: [", "pi4", "line 1: not YAML"),
        ("like: rknn\ndescription: x", "pi4", "like is 'rknn'"),
        (
            "like: ort\ndescription: x\nprecisions: [fp8]",
            "pi4",
            "no files of .fp8. .* like ort; known",
        ),
        ("like: ort\ndescription: x", "ort", "'ort' is not allowed"),
        ("like: ort\ndescription: x", "a b", "'a b' is not allowed"),
    ],
)
def test_what_describes_no_target(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        load_target(own_target(tmp_path, text, name))
    with pytest.raises(BadInputError, match="cannot be read"):
        load_target(str(tmp_path / "nowhere.yaml"))


BYTES = st.integers(0, 255)


@given(
    st.lists(BYTES, min_size=8, max_size=8),
    st.lists(st.integers(-127, 127), min_size=8, max_size=8),
)
@settings(max_examples=200)
def test_seven_bits_never_saturate_a_pair(x: list[int], w: list[int]) -> None:
    """The kernels' own sum of two products, in 16 bits, is exact for the grid of ort_avx2."""
    qmax = 2 ** (load_target("ort_avx2").weight_bits - 1) - 1
    weights = np.clip(np.array(w), -qmax, qmax)
    found = pairwise_products(np.array(x), weights)
    assert found == int(np.array(x) @ weights)


def test_eight_bits_do() -> None:
    x, w = np.array([255, 255]), np.array([127, 127])
    assert pairwise_products(x, w) == INT16.max < int(x @ w)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["operators", "gated"])
@pytest.mark.parametrize("stages", [(), (RoundWeights(samples=8),), (LearnRounding(8, 8, 20),)])
def test_no_weight_leaves_its_bits(name: str, stages: tuple[RoundWeights, ...]) -> None:
    """The weights of every file, whatever has chosen them, and the two torch forms of it agree."""
    net = network(name)
    shapes = tuple(tuple(x.shape[1:]) for x in net.inputs)
    subject = Subject(name, net.module, noise_task(*shapes))
    state = ModelState(subject, trace(net.module, subject.example_inputs()))
    for stage in (QuantizeStatic(8, 8, weight_bits=3), *stages):
        state = stage.apply(state)
    assert state.quantized is not None
    builder = ArtifactBuilder(state)
    built = [b for b in builder.build((ORT, ORT_AVX2))]
    files = [b for b in built if isinstance(b, BuiltArtifact) and b.artifact.precision == "int8"]
    assert [b.artifact.name for b in files] == ["ort-int8", "ort_avx2-int8"]
    assert {b.artifact.backend for b in files} == {"ort"}
    for file in files:
        buffers = [v for n, v in file.graph.named_buffers() if n.endswith("_int8")]
        assert buffers
        assert max(int(v.abs().max()) for v in buffers) == 3
    simulation = Simulation(state.quantized.graph, state.quantized.encodings)
    with torch.no_grad():
        np.testing.assert_array_equal(simulation(*net.inputs)[0], files[0].graph(*net.inputs))


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what instruction sets this machine has."""

    def has(*isa: str) -> None:
        context = msgspec.structs.replace(run_context(), isa=isa)
        monkeypatch.setattr("edgedl.runtime.measure.device.run_context", lambda: context)

    return has


def test_the_narrowest_target_decides_for_all(processor: Callable[..., None]) -> None:
    processor("avx2", "avx512_vnni")
    recipe = load_recipe("static_w8c_a8_rounded")
    assert fit(recipe, (ORT, TFLITE)) == recipe
    fitted = fit(recipe, (TFLITE, ORT_AVX2))
    assert fitted.stages[0] == QuantizeStatic(weight_bits=7)
    assert fitted.stages[1:] == recipe.stages[1:]


def test_this_processor_must_compute_what_it_checks(processor: Callable[..., None]) -> None:
    processor("avx2")
    static, dynamic = load_recipe("static_w8c_a8"), load_recipe("dynamic_w8_afp32")
    assert fit(static, (ORT, TFLITE)).stages == (QuantizeStatic(weight_bits=7),)
    assert fit(dynamic, (ORT,)).stages == (QuantizeDynamic(weight_bits=7),)
    assert fit(static, (TFLITE, TENSORRT)) == static
    budgeted = msgspec.structs.replace(static, budgets={0: Budget(1.0)})
    assert fit(budgeted, (TFLITE,)).stages == (QuantizeStatic(weight_bits=7),)
    wide = load_recipe("static_w8c_a16")
    assert fit(wide, (ORT, TFLITE)) == wide
    assert (ORT.weight_bits_here, TFLITE.weight_bits_here) == (7, 8)
    processor("asimddp")
    assert fit(dynamic, (ORT, TFLITE)) == dynamic


def test_widths_suit_the_kernels_of_every_target() -> None:
    recipe = load_recipe("prune_ch50")
    likes = {name: load_target(name).channel_multiple for name in target_names()}
    for targets in ((ORT_AVX2,), (TFLITE, ORT_AVX2), (ORT, TFLITE, TENSORRT)):
        fitted = fit(recipe, targets)
        assert fitted.stages[0] == PruneChannels(0.5, multiple=max(likes[t.name] for t in targets))
        assert fitted.stages[1:] == recipe.stages[1:]
    own = Recipe("x", (PruneChannels(multiple=5), PruneChannels(speedup=2.0, runtime="tflite")))
    assert fit(own, (ORT,)) == own


@pytest.mark.parametrize("bits", [0, 1, 33])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    from edgedl.compress.recipe.recipe_file import parse_recipe

    text = f"description: x\nstages:\n  - stage: quantize_static\n    weight_bits: {bits}\n"
    with pytest.raises(BadInputError, match=r"line 4: 'weight_bits': Expected `int` .= [28]"):
        parse_recipe(text, "mine.yaml")
