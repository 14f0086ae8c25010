"""The stage that stores weights as integers: which, in what groups, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import Net, noise, noise_task
from torch import nn
from weight_networks import state

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.encodings.grouped import GroupedWeight
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.recipe import keep_float
from edgedl.compress.recipe.recipe_file import load_recipe, parse_recipe
from edgedl.compress.state import ModelState
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import TARGETS
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Samples


def quantized(stage: QuantizeWeights, name: str = "tokens") -> dict[str, GroupedWeight]:
    network = stage.apply(state(name)).weights
    assert network is not None
    return {path.removesuffix("_dequantized"): w for path, w in network.weights.items()}


def linear_state(module: nn.Module, *shape: int) -> ModelState:
    subject = Subject("linear", module.eval(), noise_task(shape))
    return ModelState(subject, trace(module, (noise(2, *shape),)))


def test_all_but_convolutions_have_groups_and_those_8_bits_per_channel() -> None:
    weights = quantized(QuantizeWeights())
    assert {path: (w.bits, *w.scales.shape) for path, w in weights.items()} == {
        "tied.weight_embedding": (4, 12, 2),
        "hidden.weight_linear": (4, 40, 2),
        "out.weight_linear_1": (4, 64, 1),
        "conv.weight_conv1d": (8, 64, 1),
        "head.weight_linear_2": (4, 7, 10),
        "constant_matmul_matmul": (4, 12, 2),
        "tied.weight_linear_3": (4, 12, 2),
    }


def test_8_bits_in_groups_and_per_channel() -> None:
    found = quantized(QuantizeWeights(8, 64))
    assert {w.bits for w in found.values()} == {8}
    assert {p for p, w in found.items() if not w.per_channel} == {"head.weight_linear_2"}
    pictures = quantized(QuantizeWeights(8, None), "pictures")
    assert [w.scales.shape for w in pictures.values()] == [(6, 1), (6, 1), (4, 1), (5, 1)]


def test_the_history_names_layers_with_other_groups() -> None:
    settings = QuantizeWeights(4, 64).apply(state("tokens")).history[-1].settings
    assert settings["other_groups"] == ("out: 40 of 40 inputs",)
    assert settings["group_size"] == 64
    whole = QuantizeWeights(4, None).apply(state("tokens")).history[-1].settings
    assert whole["other_groups"] == ()
    halved = QuantizeWeights(4, 128).apply(linear_state(nn.Linear(96, 4), 96)).history[-1].settings
    assert halved["other_groups"] == ("linear: 32 of 96 inputs",)


def test_the_given_state_stays_and_the_float_graph_is_kept() -> None:
    before = state("tokens")
    weights = {name: t.clone() for name, t in before.graph.named_parameters()}
    after = QuantizeWeights().apply(before)
    assert before.weights is None
    assert after.graph is before.graph
    for name, tensor in before.graph.named_parameters():
        assert torch.equal(tensor, weights[name])


def test_the_graph_computes_with_the_dequantized_weights() -> None:
    network = QuantizeWeights(4, 32).apply(state("tokens")).weights
    assert network is not None
    buffers = dict(network.graph.named_buffers())
    for path, weight in network.weights.items():
        assert torch.equal(buffers[path], weight.dequantized())
    assert "hidden.weight" not in dict(network.graph.named_parameters())


def test_a_weight_that_two_operators_read_is_stored_once() -> None:
    layer = nn.Linear(32, 32)
    made = linear_state(Net(lambda net, x: net.layer(torch.relu(net.layer(x))), layer=layer), 32)
    for rounding in ("nearest", "gptq"):
        network = QuantizeWeights(4, 32, rounding).apply(made).weights
        assert network is not None
        assert len(network.weights) == 1
        assert len(dict(network.graph.named_buffers())) == 1


def test_layers_can_stay_float() -> None:
    assert set(quantized(QuantizeWeights(4, 32, keep_float=("h*", "matmul", "e*", "conv")))) == {
        "out.weight_linear_1",
        "tied.weight_linear_3",
    }


def test_gptq_brings_outputs_closer_on_inputs_that_go_together() -> None:
    def split(seed: int) -> Samples:
        common, own = noise(300, 1, seed=seed), noise(300, 64, seed=seed + 1)
        return Samples(((common + 0.3 * own).numpy(),), np.zeros(300, np.int64))

    splits = {"calibration": lambda: split(1), "test": lambda: split(5)}
    torch.manual_seed(0)
    module = nn.Linear(64, 16).eval()
    subject = Subject("correlated", module, ArrayTask("correlated", splits))
    made = ModelState(subject, trace(module, subject.example_inputs()))
    x = torch.tensor(split(5).inputs[0])
    errors = {}
    for rounding in ("nearest", "gptq"):
        network = QuantizeWeights(4, 32, rounding).apply(made).weights
        assert network is not None
        with torch.no_grad():
            errors[rounding] = float((network.graph(x) - made.graph(x)).square().mean())
    assert errors["gptq"] < 0.5 * errors["nearest"]


def test_both_kinds_of_quantization_go_side_by_side(float_state: ModelState) -> None:
    weights = QuantizeWeights(8, None).apply(float_state).weights
    both = replace(QuantizeStatic(samples=16).apply(float_state), weights=weights)
    plan = ArtifactBuilder(both).plan(TARGETS)
    for target in TARGETS:
        made = {p.name for t, p in plan if t == target}
        assert made - {"bfloat16"} == {"float32", "float16", "int8", "int8_weights"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("bits: 0", "bits is 0: weights can be stored in 4 or 8"),
        ("bits: 3", "bits is 3: weights can be stored in 4 or 8"),
        ("bits: 33", "bits is 33: weights can be stored in 4 or 8"),
        ("group_size: 7", "group_size is 7: it can be 32, 64, 128, or null for one step per"),
        ("group_size: 0", "group_size is 0: it can be 32, 64, 128, or null for one step per"),
        ("rounding: up", "Invalid enum value 'up'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line_with_the_fix(setting: str, message: str) -> None:
    text = f"description: x\nstages:\n  - stage: quantize_weights\n    {setting}\n"
    with pytest.raises(BadInputError, match=message) as caught:
        parse_recipe(text, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml, line ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_network_without_linear_layers_is_refused() -> None:
    made = linear_state(Net(lambda net, x: net.conv(x), conv=nn.Conv1d(3, 2, 1)), 3, 4)
    with pytest.raises(
        BadInputError,
        match=r"4 bits are for linear layers and embeddings, .*: use bits: 8",
    ):
        QuantizeWeights(4, 32).apply(made)
    assert QuantizeWeights(8, None).apply(made).weights is not None
    bare = linear_state(Net(lambda net, x: torch.relu(x) * 2), 3)
    with pytest.raises(BadInputError, match="no linear layer, convolution or embedding in"):
        QuantizeWeights(8, None).apply(bare)


def test_layers_that_match_nothing_or_everything_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"no layer is called 'hiden', did you mean 'hidden'"):
        QuantizeWeights(keep_float=("hiden",)).apply(state("tokens"))
    with pytest.raises(BadInputError, match="keep_float leaves quantize_weights no layer"):
        QuantizeWeights(keep_float=("*",)).apply(state("tokens"))


def test_weights_are_quantized_once_and_after_the_float_network_is_rewritten() -> None:
    once = QuantizeWeights().apply(state("tokens"))
    with pytest.raises(BadInputError, match="would quantize what quantize_weights has"):
        QuantizeWeights(8, None).apply(once)
    with pytest.raises(BadInputError, match="needs it before quantize_weights"):
        Equalize().apply(once)


def test_the_shipped_recipes() -> None:
    assert load_recipe("weight_only_w8c").stages == (QuantizeWeights(8, None),)
    assert load_recipe("weight_only_w4g32").stages == (QuantizeWeights(4, 32),)
    assert load_recipe("weight_only_w4g32_gptq").stages == (QuantizeWeights(4, 32, "gptq"),)


def test_the_command_lines_float_layers_reach_the_stage() -> None:
    (stage,) = keep_float(load_recipe("weight_only_w4g32"), ("head",)).stages
    assert stage == QuantizeWeights(4, 32, keep_float=("head",))


def test_layers_too_wide_for_their_moments_are_rounded_to_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgedl.compress.quantize.weight_only.LARGEST", 63)
    made = replace(state("tokens"))
    found, expected = (
        QuantizeWeights(4, 32, r).apply(made).weights.weights  # type: ignore[union-attr]
        for r in ("gptq", "nearest")
    )
    differing = [p for p in found if not torch.equal(found[p].integers, expected[p].integers)]
    # Of 64, 40, 320, 64 and 64 inputs only the layer of 40 is rounded with its inputs in view.
    assert differing == ["out.weight_linear_1_dequantized"]
