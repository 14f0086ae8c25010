"""Sparsity: which weights become zero, and that they are zero in every file that ships."""

import operator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from file_readers import TFLiteFile
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import noise
from tiny import make_subject
from torch import Tensor, nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.encodings.emit import emit
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.corrections.smooth import Smooth
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.recipe_file import parse_recipe
from edgedl.compress.sparsify.patterns import (
    is_two_of_four,
    largest_of_all,
    largest_of_each,
    sparsity_of,
    two_of_four,
)
from edgedl.compress.sparsify.sparsify import Sparsify
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.training.zeros import hold_zeros, sparse_paths
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.precision import INT8

# Of the network in tiny.py; the others read 3 inputs, or 1 per group.
FITTING = ["pointwise.weight", "branch.weight", "fc.weight"]
SPARSE = Sparsify(pattern="2:4")
STATIC = QuantizeStatic(32, 32)


@pytest.fixture
def state(float_state: ModelState) -> ModelState:
    return float_state


@pytest.fixture(scope="module")
def sparse(float_state: ModelState) -> ModelState:
    return SPARSE.apply(float_state)


def weight_of(state: ModelState, path: str) -> Tensor:
    return operator.attrgetter(path)(state.subject.module.graph).detach()


def breaks_the_pattern(weight: np.ndarray) -> bool:
    """Say whether some four inputs of [C_out, C_in, ...] have more than two values: loops."""
    outputs, inputs = weight.shape[:2]
    flat = weight.reshape(outputs, inputs, -1)
    return any(
        np.count_nonzero(flat[o, i : i + 4, place]) > 2
        for o in range(outputs)
        for i in range(0, inputs, 4)
        for place in range(flat.shape[2])
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_of_every_four_inputs_the_two_largest_stay(outputs, fours, side, seed) -> None:
    weight = noise(outputs, 4 * fours, side, side, seed=seed)
    mask = two_of_four(weight).numpy()
    for o, i, y, x in np.ndindex(outputs, fours, side, side):
        group = weight[o, 4 * i : 4 * i + 4, y, x].abs().numpy()
        expected = set(np.argsort(group)[2:].tolist())
        assert set(np.flatnonzero(mask[o, 4 * i : 4 * i + 4, y, x]).tolist()) == expected


def test_equal_values_are_no_exception() -> None:
    assert two_of_four(torch.ones(2, 8)).sum(1).tolist() == [4, 4]
    assert not is_two_of_four(torch.ones(1, 4))
    assert not is_two_of_four(torch.zeros(1, 6))


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.integers(0, 99))
def test_no_value_that_goes_is_larger_than_one_that_stays(sparsity: float, seed: int) -> None:
    weights = [noise(4, 5, seed=seed), 10 * noise(3, 2, 2, seed=seed + 1)]
    for mask, weight in zip(largest_of_each(weights, sparsity), weights, strict=True):
        gone = np.sort(weight.abs()[~mask].numpy())
        assert len(gone) == round(sparsity * weight.numel())
        np.testing.assert_array_equal(gone, np.sort(weight.abs().flatten())[: len(gone)])
    masks = largest_of_all(weights, sparsity)
    gone = np.concatenate([w.abs()[~m].numpy() for w, m in zip(weights, masks, strict=True)])
    every = np.sort(np.concatenate([w.abs().flatten().numpy() for w in weights]))
    np.testing.assert_array_equal(np.sort(gone), every[: round(sparsity * 32)])


def test_the_history_states_what_the_files_will_have(state: ModelState, sparse: ModelState) -> None:
    found = sparse.history[-1].settings
    assert found["layers"] == tuple(f"{path}=0.5" for path in FITTING)
    assert found["measured_sparsity"] == 0.5
    assert found["verified"] is True
    assert found["left"] == (
        "stem.weight: 3 inputs per group are no multiple of 4",
        "depthwise.weight: 1 inputs per group are no multiple of 4",
    )
    assert sparse.parent is state.subject.module
    assert int(state.subject.module.fc.weight.count_nonzero()) == 48
    x = state.subject.example_inputs()
    torch.testing.assert_close(sparse.subject.module(*x), sparse.graph(*x), rtol=1e-4, atol=1e-5)


def test_unstructured_sparsity_is_what_was_asked_for(state: ModelState) -> None:
    for scope in ("uniform", "global"):
        sparse = Sparsify(0.7, scope=scope, keep=("fc",)).apply(state)
        paths = sparse_paths(sparse.history)
        assert paths == ("stem.weight", "depthwise.weight", "pointwise.weight", "branch.weight")
        weights = [weight_of(sparse, path) for path in paths]
        assert sparsity_of(weights) == pytest.approx(0.7, abs=0.01)
        assert sparse.history[-1].settings["measured_sparsity"] == sparsity_of(weights)
        each = {round(sparsity_of([w]), 1) for w in weights}
        assert (each == {0.7}) == (scope == "uniform")


def test_more_sparsity_keeps_the_zeros_there_are(state: ModelState) -> None:
    some = Sparsify(0.4).apply(state)
    more = Sparsify(0.6).apply(some)
    for path in sparse_paths(some.history):
        assert not weight_of(more, path)[weight_of(some, path) == 0].any()


def test_fine_tuning_moves_everything_but_zeros(sparse: ModelState, tmp_path: Path) -> None:
    sparse = replace(sparse, workspace=tmp_path)
    stage = FineTune(2, batch_size=16, learning_rate=0.05)
    first = stage.apply(sparse)
    # From the checkpoint: what a run that was interrupted goes on from.
    for trained in (first, stage.apply(sparse)):
        for path in FITTING:
            before, after = weight_of(sparse, path), weight_of(trained, path)
            assert torch.equal(before == 0, after == 0)
            assert (after != before)[before != 0].all()
        stem = "stem.weight"
        assert not torch.equal(weight_of(sparse, stem), weight_of(trained, stem))


def test_momentum_cannot_move_a_zero() -> None:
    layer = nn.Linear(4, 2)
    layer.weight.data[0, :2] = 0
    after_step = hold_zeros([layer.weight])
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    for step in range(3):
        layer(noise(5, 4, seed=step)).square().sum().backward()
        optimizer.step()
        assert layer.weight[0, :2].all()
        after_step(1, step, 0.0)
        assert not layer.weight[0, :2].any()


def onnx_weights(content: bytes) -> list[np.ndarray]:
    """Return the int8 weights of convolutions and linear layers, output channels first."""
    graph = onnx.load_from_string(content).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    made = {out: node for node in graph.node for out in node.output}
    weights = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        name, turned = node.input[1], node.op_type == "MatMul"
        if node.op_type == "Gemm":
            turned = not any(a.name == "transB" and a.i for a in node.attribute)
        while name not in constants:
            turned ^= made[name].op_type == "Transpose"
            name = made[name].input[0]
        assert constants[name].dtype == np.int8
        weights.append(constants[name].T if turned else constants[name])
    return weights


LATER = {
    "static": [STATIC],
    "equalized": [Equalize(samples=32), STATIC],
    "smooth": [Smooth(samples=32), STATIC],
    "rounded": [STATIC, RoundWeights(samples=32)],
    "learned_rounding": [STATIC, LearnRounding(32, 16, iterations=100, learning_rate=0.1)],
    "matched": [STATIC, MatchStatistics(samples=32)],
    "trained": [STATIC, TrainQuantized(1, samples=64, batch_size=16, learning_rate=0.01)],
}


def after(state: ModelState, stages: list[Stage]) -> ModelState:
    for stage in stages:
        state = stage.apply(state)
    return state


@pytest.mark.parametrize("name", list(LATER))
def test_the_pattern_outlives_every_later_stage(sparse: ModelState, name: str) -> None:
    network = after(sparse, LATER[name]).quantized
    assert network is not None
    emitted = emit(network.graph, network.encodings, ORT)
    integers = [b.numpy() for b in emitted.buffers() if b.dtype == torch.int8 and b.ndim > 1]
    check_pattern(integers)


def check_pattern(integers: list[np.ndarray]) -> None:
    """Hold the weights of tiny.py that have inputs in fours against the pattern."""
    weights = [w for w in integers if w.shape[1] % 4 == 0]
    assert sorted(w.shape[:2] for w in weights) == [(4, 8), (4, 12), (8, 8)]
    for weight in weights:
        assert not breaks_the_pattern(weight)
        assert np.count_nonzero(weight) > 0.4 * weight.size


def test_the_integers_of_the_onnx_file_have_the_pattern(sparse: ModelState) -> None:
    check_pattern(onnx_weights(ArtifactBuilder(STATIC.apply(sparse)).file(ORT, INT8)[1]))


def test_the_integers_of_a_dense_network_do_not(state: ModelState) -> None:
    network = STATIC.apply(state).quantized
    assert network is not None
    for weight in emit(network.graph, network.encodings, ORT).buffers():
        if weight.dtype == torch.int8 and weight.ndim > 1 and weight.shape[1] % 4 == 0:
            assert breaks_the_pattern(weight.numpy())


@pytest.mark.slow
def test_the_integers_of_the_tflite_file_have_the_pattern(sparse: ModelState) -> None:
    content = ArtifactBuilder(STATIC.apply(sparse)).file(TFLITE, INT8)[1]
    file = TFLiteFile(content, xnnpack=False)
    shapes = []
    for details in file.tensors:
        shape = tuple(int(s) for s in details["shape"])
        if details["dtype"] is np.int8 and shape in {(8, 1, 1, 8), (4, 1, 1, 8), (4, 12)}:
            weight = file._interpreter.get_tensor(details["index"])
            assert not breaks_the_pattern(np.moveaxis(weight, -1, 1))
            shapes.append(shape)
    assert sorted(shapes) == [(4, 1, 1, 8), (4, 12), (8, 1, 1, 8)]


def test_weights_of_four_bits_have_the_pattern() -> None:
    layers = nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 4)
    net = nn.Sequential(nn.AvgPool2d(12), nn.Flatten(), *layers).eval()
    subject = Subject("linear", net, make_subject().task)
    state = begin(subject)
    stage = QuantizeWeights(rounding="gptq", group_size=None, samples=64)
    found = after(state, [SPARSE, stage])
    assert found.weights is not None
    every = [weight.integers.numpy() for weight in found.weights.weights.values()]
    assert [breaks_the_pattern(w) for w in every if w.shape == (4, 16)] == [False]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Sparsify(keep=("*",)), "nothing to make sparse"),
        (Sparsify(keep=("head",)), "no layer is called 'head'"),
        (Sparsify(pattern="2:4", keep=("pointwise", "branch", "fc")), "stem.weight: 3 inputs"),
    ],
)
def test_nothing_left_is_an_error_that_names_the_layers(
    state: ModelState, stage: Sparsify, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        stage.apply(state)


@pytest.mark.parametrize("sparsity", [0, 1, 0.0, 1.0, -0.5])
def test_a_share_of_nothing_or_all_is_refused(sparsity: float) -> None:
    text = f"description: x\nstages:\n  - stage: sparsify\n    sparsity: {sparsity}\n"
    with pytest.raises(BadInputError, match="line 4"):
        parse_recipe(text, "mine.yaml")
    with pytest.raises(BadInputError, match=r"sparsity = .*Expected `float` (> 0.0|< 1.0)"):
        Sparsify(sparsity)


def test_the_pattern_has_no_other_sparsity() -> None:
    for other in ({"sparsity": 0.6}, {"scope": "global"}):
        with pytest.raises(BadInputError, match="leave sparsity and scope out"):
            Sparsify(pattern="2:4", **other)


def test_stages_in_an_impossible_order(state: ModelState, sparse: ModelState) -> None:
    with pytest.raises(BadInputError, match=r"prune_channels .* before sparsify"):
        PruneChannels(0.5, multiple=1).apply(sparse)
    for first in (STATIC, Equalize()):
        with pytest.raises(BadInputError, match="the recipe needs it before"):
            SPARSE.apply(first.apply(state))
