"""Settings of the training loop in the stages: they arrive, resume, and keep older files."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import torch
from listening import notes_to
from torch import Tensor

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe_file import parse_recipe
from edgedl.compress.state import ModelState
from edgedl.runtime.errors import BadInputError

TUNE = FineTune(epochs=3, samples=64, batch_size=16, learning_rate=0.02, distil=0.0)
QUANTIZED = TrainQuantized(
    epochs=3, samples=32, batch_size=8, learning_rate=1e-3, scale_learning_rate=3e-2
)


def weights(state: ModelState) -> dict[str, Tensor]:
    if state.quantized is not None:
        return cast(dict[str, Tensor], state.quantized.graph.state_dict())
    return cast(TracedNetwork, state.subject.module).tensors()


def same(a: ModelState, b: ModelState) -> bool:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    tables = [s.quantized and s.quantized.encodings.to_json() for s in (a, b)]
    return tables[0] == tables[1] and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(params=["fine_tune", "train_quantized"])
def stage_and_state(request: pytest.FixtureRequest, float_state: ModelState) -> Any:
    if request.param == "fine_tune":
        return TUNE, float_state
    return QUANTIZED, QuantizeStatic(samples=64).apply(float_state)


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"ema_decay": 0.5}, {"patience": 1}])
def test_settings_arrive_and_are_written_down(
    stage_and_state: Any, change: dict[str, Any], tmp_path: Path
) -> None:
    stage, state = stage_and_state
    changed = msgspec.structs.replace(stage, **change)
    trained = changed.apply(replace(state, workspace=tmp_path))
    entry = trained.history[-1]
    assert entry.settings.items() >= change.items()
    assert 1 <= cast(int, entry.settings["trained_epochs"]) <= 3
    if "patience" not in change:
        assert not same(trained, stage.apply(state))
    # What the workspace keeps is the same run, to the bit.
    assert same(changed.apply(replace(state, workspace=tmp_path)), trained)


def test_patience_ends_a_run_that_gets_worse(float_state: ModelState) -> None:
    stage = msgspec.structs.replace(TUNE, epochs=9, learning_rate=3.0, patience=1)
    assert cast(int, stage.apply(float_state).history[-1].settings["trained_epochs"]) < 9


@pytest.mark.parametrize("stage", ["fine_tune", "train_quantized"])
def test_a_recipe_sets_them(stage: str) -> None:
    text = f"description: d\nstages:\n  - stage: {stage}\n    accumulate: 2\n    ema_decay: 0.99\n"
    (found,) = parse_recipe(text + "    patience: null\n", "r").stages
    assert (found.accumulate, found.ema_decay, found.patience) == (2, 0.99, None)  # type: ignore[attr-defined]
    for line in ("ema_decay: 1.0", "accumulate: 0", "patience: 0"):
        with pytest.raises(BadInputError, match="line 4"):
            parse_recipe(f"description: d\nstages:\n  - stage: {stage}\n    {line}\n", "r")


def test_every_epoch_is_told_with_the_time_left(float_state: ModelState) -> None:
    heard: list[str] = []
    msgspec.structs.replace(TUNE, epochs=2).apply(
        replace(float_state, progress=notes_to(heard.append))
    )
    data, *epochs = heard
    assert data.startswith("fine_tune trains on the calibration data")
    assert len(epochs) == 2
    assert re.fullmatch(r"fine_tune, epoch 1/2: loss \d\.\d{4}, about \d+ s left", epochs[0])
    assert epochs[1].endswith("about 0 s left")
