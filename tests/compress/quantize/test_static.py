"""The stage that fills the table: how much calibration data it takes, and what it hands on."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import Net, noise, noise_task
from tiny import make_task
from torch import nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.task import ArrayTask, Batch, Samples

ROWS = np.arange(40, dtype=np.float32).reshape(20, 2)
ROWS_TASK = ArrayTask("rows", {"calibration": lambda: Samples((ROWS, -ROWS), np.zeros(20))})


@given(st.integers(1, 30), st.integers(1, 30))
def test_the_first_samples_are_taken_in_order(samples: int, batch_size: int) -> None:
    batches = list(calibration_inputs(ROWS_TASK, samples, batch_size))
    first, second = (torch.cat(column).numpy() for column in zip(*batches, strict=True))
    assert np.array_equal(first, ROWS[:samples])
    assert np.array_equal(second, -ROWS[:samples])
    assert all(1 <= len(x) <= batch_size for x, _ in batches)


def test_the_stage_adds_the_table_and_its_settings(float_state: ModelState) -> None:
    stage = QuantizeStatic(samples=48, batch_size=16, observer="minmax")
    state = stage.apply(float_state)
    batches = [(torch.tensor(b.inputs[0]),) for b in make_task().batches("calibration", 16)]
    expected = calibrate(float_state.graph, batches[:3], "minmax")
    assert state.quantized.encodings.activations == expected.activations
    assert state.graph is float_state.graph
    (entry,) = state.history
    assert entry.stage == "quantize_static"
    assert entry.settings == {
        "samples": 48,
        "batch_size": 16,
        "observer": "minmax",
        "keep_float": (),
        "percentile": 99.99,
        "weight_observer": "minmax",
        "weight_bits": 8,
        "scope": "every_operator",
        "activation_bits": 8,
    }
    assert float_state.quantized is None
    assert float_state.history == ()


def test_the_observer_is_the_one_that_was_asked_for(float_state: ModelState) -> None:
    tables = [
        QuantizeStatic(samples=32, observer=observer)
        .apply(float_state)
        .quantized.encodings.activations
        for observer in ("minmax", "mse")
    ]
    assert tables[0]["x"] == tables[1]["x"]
    narrower = [n for n in tables[0] if tables[1][n].hi < tables[0][n].hi * 0.999]
    assert narrower
    assert all(tables[1][n].hi <= tables[0][n].hi for n in tables[0])


def test_the_settings_of_observers_reach_the_table(float_state: ModelState) -> None:
    batches = [(torch.tensor(b.inputs[0]),) for b in make_task().batches("calibration", 32)]
    stage = QuantizeStatic(64, 32, "percentile", percentile=98.0)
    found = stage.apply(float_state).quantized.encodings.activations
    assert found == calibrate(float_state.graph, batches, "percentile", 98.0).activations
    whole = calibrate(float_state.graph, batches, "percentile", 100.0).activations
    assert found["relu"].hi < whole["relu"].hi


def test_weights_are_clipped_if_asked_for() -> None:
    net = torch.nn.Linear(20_000, 1)
    net.weight.data[:] = torch.linspace(-1, 1, 20_000)
    net.weight.data[:, 0] = 1.3
    state = ModelState(Subject("wide", net, noise_task((20_000,))), trace(net, (noise(2, 20_000),)))
    amax = {}
    for observer in ("minmax", "mse"):
        found = QuantizeStatic(samples=4, weight_observer=observer).apply(state)
        (amax[observer],) = (float(a) for a in found.quantized.encodings.weights.values())
    assert amax["mse"] < amax["minmax"] == pytest.approx(1.3)


def test_only_the_calibration_split_is_read(float_state: ModelState) -> None:
    task = ArrayTask(
        "one",
        {"calibration": make_task().splits["calibration"]},
        preprocessing=make_task().preprocessing,
    )
    state = ModelState(Subject("one", torch.nn.Identity(), task), float_state.graph)
    assert QuantizeStatic(samples=8).apply(state).quantized is not None


class EmptyTask:
    """A task of the user's own whose calibration split is empty."""

    name, metric, classes, preprocessing = "none", "top1", (), None

    def score(self, outputs: object, labels: np.ndarray) -> np.ndarray:
        return np.zeros(len(labels))

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        return iter(())


@pytest.mark.parametrize(
    "task",
    [EmptyTask(), ArrayTask("none", {"calibration": lambda: Samples((ROWS[:0],), np.zeros(0))})],
)
def test_no_calibration_samples_are_refused(task: object) -> None:
    net = Net(lambda _, x: x * 2.0)
    state = ModelState(Subject("none", net, task), trace(net, (noise(2, 2),)))
    with pytest.raises(BadInputError):
        QuantizeStatic().apply(state)


def test_nan_in_the_calibration_split_is_refused() -> None:
    def split() -> Samples:
        x = noise(6, 2).numpy()
        x[5, 0] = np.nan
        return Samples((x,), np.zeros(6))

    net = Net(lambda _, x: x * 2.0)
    task = ArrayTask("holes", {"calibration": split})
    state = ModelState(Subject("holes", net, task), trace(net, (noise(2, 2),)))
    with pytest.raises(BadInputError, match="not finite"):
        QuantizeStatic(batch_size=2).apply(state)
    assert QuantizeStatic(samples=5, batch_size=2).apply(state).quantized is not None


def test_several_inputs_are_calibrated_each_on_its_own() -> None:
    net = Net(lambda _, x: x)
    net.forward = lambda x, y: x + 3.0 * y
    task = noise_task((2, 3), (2, 3))
    subject = Subject("two", net, task)
    state = begin(subject)
    found = QuantizeStatic().apply(state).quantized.encodings.activations
    (batch,) = task.batches("calibration", 1000)
    for name, values in zip(("x", "y"), batch.inputs, strict=True):
        assert (found[name].lo, found[name].hi) == (values.min(), values.max())


def test_layers_that_are_kept_in_float_are_in_the_table(float_state: ModelState) -> None:
    state = QuantizeStatic(samples=8, keep_float=("fc",)).apply(float_state)
    (node,) = [
        n for n in float_state.graph.graph.nodes if n.name in state.quantized.encodings.float_nodes
    ]
    assert layer_name(node) == "fc"
    assert b'"float": ["linear"]' in b" ".join(state.quantized.encodings.to_json().split()).replace(
        b"[ ", b"["
    ).replace(b" ]", b"]")
    with pytest.raises(BadInputError, match="no layer is called 'head'"):
        QuantizeStatic(samples=8, keep_float=("head",)).apply(float_state)


def block(m: Net, x: torch.Tensor) -> torch.Tensor:
    return m.fc(torch.nn.functional.gelu(m.norm(m.first(x))))


def test_layers_that_are_float_anyway_may_be_kept_float() -> None:
    net = Net(block, first=nn.Linear(6, 8), norm=nn.LayerNorm(8), fc=nn.Linear(8, 3)).eval()
    state = begin(Subject("block", net, noise_task((6,))))
    plain = QuantizeStatic(samples=8).apply(state).quantized.encodings
    kept = QuantizeStatic(samples=8, keep_float=("norm",)).apply(state).quantized.encodings
    assert (kept.activations, kept.float_nodes) == (plain.activations, frozenset())
    weights = QuantizeWeights(8, None, keep_float=("norm",)).apply(state).weights
    assert len(weights.weights) == 2


def test_something_must_be_left_to_quantize(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="keep_float leaves no layer to quantize"):
        QuantizeStatic(samples=8, keep_float=("*",)).apply(float_state)
