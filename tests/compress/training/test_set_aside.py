"""A stage that trains ends with the best of its epochs and its start, on samples set aside."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import torch
from listening import notes_to
from tiny import make_subject, pictures

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.encodings.encodings import Range
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.runtime.progress import Progress

TUNE = FineTune(epochs=3, samples=64, batch_size=16, learning_rate=1e-3, distil=1.0)
QUANTIZED = TrainQuantized(
    epochs=3, samples=64, batch_size=16, learning_rate=1e-4, distil=1.0, scale_learning_rate=1e-3
)


def state_of(count: int, progress: Progress) -> ModelState:
    subject = make_subject()
    splits = {**subject.task.splits, "train": lambda: pictures(count, 3)}
    subject = replace(subject, task=replace(subject.task, splits=splits))
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    return ModelState(subject, graph, progress=progress)


def quantized(count: int, progress: Progress) -> ModelState:
    return QuantizeStatic(samples=64).apply(state_of(count, progress))


def values(state: ModelState) -> dict[str, torch.Tensor]:
    graph = state.graph if state.quantized is None else state.quantized.graph
    return {name: value.detach() for name, value in graph.state_dict().items()}


def unchanged(a: ModelState, b: ModelState) -> bool:
    first, second = values(a), values(b)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("stage", "begin", "harm"),
    [
        (TUNE, state_of, {"learning_rate": 2.0}),
        (QUANTIZED, quantized, {"learning_rate": 1.0, "scale_learning_rate": 1.0}),
    ],
    ids=["fine_tune", "train_quantized"],
)
def test_training_that_makes_it_worse_leaves_the_network_as_it_was(
    stage: Stage, begin: Any, harm: dict[str, float]
) -> None:
    heard: list[str] = []
    state = begin(400, notes_to(heard.append))
    worse = msgspec.structs.replace(stage, **harm).apply(state)
    assert unchanged(worse, state)
    found = worse.history[-1].settings
    assert found["kept_epoch"] == 0
    assert found["loss_after"] >= found["loss_before"]
    assert any("nothing gained, the network stays as it was" in line for line in heard)


def test_what_is_gained_is_said_and_kept() -> None:
    heard: list[str] = []
    state = quantized(400, notes_to(heard.append))
    coarse = replace(state, quantized=_with_coarser_steps(state))
    stage = msgspec.structs.replace(QUANTIZED, learning_rate=1e-3, scale_learning_rate=1e-1)
    better = stage.apply(coarse)
    assert not unchanged(better, coarse)
    found = better.history[-1].settings
    assert found["set_aside"] == 40
    assert 1 <= found["kept_epoch"] <= 3
    assert found["loss_after"] < found["loss_before"]
    assert any("the loss on 40 samples that were set aside went from" in line for line in heard)


def _with_coarser_steps(state: ModelState) -> Any:
    network = state.quantized
    assert network is not None
    ranges = {
        name: r if name == "x" else Range(r.lo / 4, r.hi / 4)
        for name, r in network.encodings.activations.items()
    }
    return replace(network, encodings=replace(network.encodings, activations=ranges))


def test_a_split_that_is_too_small_to_set_samples_aside_is_trained_on_whole() -> None:
    heard: list[str] = []
    state = TUNE.apply(state_of(40, notes_to(heard.append)))
    assert "set_aside" not in state.history[-1].settings
    assert not any("set aside" in line for line in heard)
