"""The stage: what it keeps and writes down, that it resumes to the bit, and what it wins back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from file_readers import TFLiteFile, onnx_grids
from small_networks import Net, noise_task
from tiny import pictures
from torch import nn

from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.encodings import Range, weight_scales
from edgedl.compress.encodings.placement import place
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe_file import parse_recipe
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.score import score_module
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.training import TrainingDivergedError, TrainingSettings, set_aside, train
from edgedl.compress.training.task_batches import TaskBatches
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Samples

# Rates at which a few steps are enough to change every number.
QUICK = TrainQuantized(
    epochs=2, samples=32, batch_size=16, learning_rate=1e-3, scale_learning_rate=3e-2
)


@pytest.fixture(scope="session")
def calibrated(float_state: ModelState) -> ModelState:
    return QuantizeStatic(samples=64).apply(float_state)


@pytest.fixture(scope="session")
def trained(calibrated: ModelState) -> ModelState:
    return msgspec.structs.replace(QUICK, learn="scales_and_offsets").apply(calibrated)


def tensors(state: ModelState) -> dict[str, torch.Tensor]:
    return state.quantized.graph.state_dict()


def assert_same(a: ModelState, b: ModelState) -> None:
    assert a.quantized.encodings.to_json() == b.quantized.encodings.to_json()
    first, second = tensors(a), tensors(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="needs quantize_static before it"):
        QUICK.apply(float_state)


def test_the_float_network_and_the_given_table_stay(
    float_state: ModelState, calibrated: ModelState, trained: ModelState
) -> None:
    assert trained.graph is calibrated.graph is float_state.graph
    assert trained.quantized.graph is not calibrated.quantized.graph
    assert all(
        torch.equal(v, tensors(calibrated)[k]) for k, v in float_state.graph.state_dict().items()
    )
    ranges, before = (s.quantized.encodings.activations for s in (trained, calibrated))
    assert ranges["x"] == before["x"]
    assert sum(ranges[name] != before[name] for name in before) > len(before) // 2


def test_the_settings_and_the_split_are_written_down(
    calibrated: ModelState, trained: ModelState
) -> None:
    entry = trained.history[-1]
    assert (entry.stage, entry.settings["split"]) == ("train_quantized", "calibration")
    assert entry.settings["scale_learning_rate"] == 3e-2
    splits = {"train": lambda: pictures(40, 3), "calibration": lambda: pictures(2, 4)}
    task = replace(calibrated.subject.task, splits=splits)
    state = replace(calibrated, subject=replace(calibrated.subject, task=task))
    # There is no "test", and "calibration" has the example inputs alone.
    assert QUICK.apply(state).history[-1].settings["split"] == "train"


def test_the_seed_fixes_the_result(calibrated: ModelState) -> None:
    first, again = QUICK.apply(calibrated), QUICK.apply(calibrated)
    assert_same(first, again)
    other = msgspec.structs.replace(QUICK, seed=1).apply(calibrated)
    assert other.quantized.encodings.activations != first.quantized.encodings.activations


class StoppedError(Exception):
    pass


def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    float_state: ModelState,
    calibrated: ModelState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = msgspec.structs.replace(QUICK, distil=0.5, learn="scales_and_offsets")
    whole = stage.apply(calibrated)
    state = replace(calibrated, workspace=tmp_path)

    def stop(epoch: int, step: int, loss: float) -> None:
        if (epoch, step) == (2, 2):
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(
            set_aside, "train", lambda *a, **named: train(*a, **{**named, "on_step": stop})
        )
        with pytest.raises(StoppedError):
            stage.apply(state)
    (checkpoint,) = tmp_path.iterdir()
    assert checkpoint.match("train_quantized-*.pt")
    resumed = stage.apply(state)
    assert_same(resumed, whole)
    assert list(tmp_path.iterdir()) == [checkpoint]
    with pytest.raises(BadInputError, match="other settings"):
        msgspec.structs.replace(stage, seed=9).apply(state)
    other = QuantizeStatic(samples=8).apply(float_state)
    stage.apply(replace(other, workspace=tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_rate_far_too_high_diverges(calibrated: ModelState) -> None:
    stage = msgspec.structs.replace(QUICK, scale_learning_rate=1e30)
    with pytest.raises(TrainingDivergedError, match="lower the learning rate"):
        stage.apply(calibrated)


def test_a_task_that_is_no_classification_learns_from_the_float_network() -> None:
    net = Net(lambda n, x: F.relu(n.a(x)), a=nn.Linear(6, 4)).eval()
    subject = Subject("regression", net, noise_task((6,)))
    state = QuantizeStatic().apply(begin(subject))
    distilled = QUICK.apply(state)
    assert distilled.history[-1].settings["weight_of_teacher"] == 1.0
    assert_same(distilled, msgspec.structs.replace(QUICK, distil=1.0).apply(state))
    assert not torch.equal(tensors(distilled)["a.weight"], net.a.weight)


@pytest.mark.parametrize(
    "line", ["distil: 1.5", "temperature: 0", "learn: offsets", "epochs: 0", "learning_rate: -1"]
)
def test_settings_that_mean_nothing_are_refused(line: str) -> None:
    with pytest.raises(BadInputError, match="line 4"):
        parse_recipe(f"description: d\nstages:\n  - stage: train_quantized\n    {line}\n", "r")


def placed_grids(network: QuantizedNetwork, target: str) -> set[tuple[float, int]]:
    activations = network.encodings.activations
    placed = place(network.graph.graph, network.encodings, target)
    grids = [affine_for(activations[node.name], target) for node in placed]
    return {(grid.scale, grid.zero_point) for grid in grids}


def scale_bits(network: QuantizedNetwork) -> set[bytes]:
    return {weight_scales(a).numpy().tobytes() for a in network.encodings.weights.values()}


@pytest.mark.slow
@pytest.mark.parametrize("target", [ORT, TENSORRT])
def test_learned_steps_are_those_of_the_onnx_file(trained: ModelState, target: Any) -> None:
    network = trained.quantized
    inputs = trained.subject.example_inputs()
    grids, weights = onnx_grids(to_onnx(emit(network.graph, network.encodings, target), inputs))
    assert grids == placed_grids(network, target)
    assert {w.tobytes() for w in weights} == scale_bits(network)


@pytest.mark.slow
def test_learned_steps_are_those_of_the_tflite_file(trained: ModelState) -> None:
    network = trained.quantized
    graph = emit(network.graph, network.encodings, TFLITE)
    file = TFLiteFile(
        to_tflite(graph, trained.subject.example_inputs(), True, False), xnnpack=False
    )
    parameters = [t["quantization_parameters"] for t in file.tensors if t["dtype"] == np.int8]
    single = {
        (float(p["scales"][0]), int(p["zero_points"][0]))
        for p in parameters
        if len(p["scales"]) == 1
    }
    assert placed_grids(network, TFLITE) <= single
    vectors = {p["scales"].tobytes() for p in parameters if len(p["scales"]) > 1}
    assert scale_bits(network) == vectors


CORNERS = 4


def corner_task() -> ArrayTask:
    """Return pictures [N, 1, 8, 8] of noise with a faint mark in one of the four corners."""

    def split(seed: int, count: int) -> Samples:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CORNERS, count)
        x = rng.standard_normal((count, 1, 8, 8)).astype(np.float32)
        for index, label in enumerate(labels):
            row, column = 4 * (label // 2), 4 * (label % 2)
            x[index, 0, row : row + 4, column : column + 4] += 0.9
        return Samples((x,), labels)

    return ArrayTask(
        "corners",
        {
            "calibration": lambda: split(1, 64),
            "train": lambda: split(2, 2000),
            "test": lambda: split(3, 1000),
        },
        classes=("a", "b", "c", "d"),
    )


@pytest.fixture(scope="module")
def corner_state() -> ModelState:
    """A small network that was trained for real, quantized."""
    torch.manual_seed(0)
    net = Net(
        lambda n, x: n.fc(F.avg_pool2d(F.relu(n.b(F.relu(n.a(x)))), 4).flatten(1)),
        a=nn.Conv2d(1, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 3, padding=1),
        fc=nn.Linear(32, CORNERS),
    )
    task = corner_task()
    settings = TrainingSettings(3, 50, max_learning_rate=5e-3, weight_decay=0, optimizer="adamw")

    def loss(outputs: torch.Tensor, targets: Any) -> torch.Tensor:
        return F.cross_entropy(outputs, targets.labels)

    train(net, TaskBatches(task, "train", 2000, 50), loss, settings)
    subject = Subject("corners", net, task)
    return QuantizeStatic().apply(begin(subject))


def with_ranges_times(state: ModelState, factor: float) -> ModelState:
    encodings = state.quantized.encodings
    ranges = {
        name: r if name == "x" else Range(factor * r.lo, factor * r.hi)
        for name, r in encodings.activations.items()
    }
    network = QuantizedNetwork(state.quantized.graph, replace(encodings, activations=ranges))
    return replace(state, quantized=network)


def accuracy(state: ModelState) -> float:
    network = state.quantized
    graph = emit(network.graph, network.encodings, ORT)
    return float(score_module(graph, state.subject.task).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "distil", "learn"), [(0.02, 0.0, "scales"), (80.0, 1.0, "scales_and_offsets")]
)
def test_training_wins_back_what_bad_ranges_lost(
    corner_state: ModelState, factor: float, distil: float, learn: Any
) -> None:
    state = with_ranges_times(corner_state, factor)
    exact = float(score_module(state.graph, state.subject.task).mean())
    before = accuracy(state)
    stage = TrainQuantized(
        epochs=2,
        samples=2000,
        batch_size=50,
        learn=learn,
        distil=distil,
        learning_rate=1e-3,
        scale_learning_rate=1e-1,
    )
    after = accuracy(stage.apply(state))
    assert exact > 0.95
    assert before < exact - 0.1
    assert exact - after < 0.2 * (exact - before)
