"""What the key of a stage's result is made of."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from tiny import make_net, make_subject, make_task

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.recipe.store.ingredients import Provenance, data_digest
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.task.task import Samples

PRUNE = PruneChannels(ratio=0.5, multiple=2)
TUNE = FineTune(epochs=2, samples=32, batch_size=16)


def key_of(state: ModelState, stage: Stage, toolchain: dict[str, str]) -> str:
    return Provenance(state, toolchain).ingredients(stage, state).key()


def with_other_weights(subject: Subject) -> Subject:
    net = make_net()
    with torch.no_grad():
        net.fc.bias[0] += 1e-6
    return replace(subject, module=net)


def with_other_data(subject: Subject) -> Subject:
    def changed() -> Samples:
        whole = make_task().splits["calibration"]()
        whole.inputs[0][-1, 0, 0, 0] ^= 1
        return whole

    task = make_task()
    return replace(subject, task=replace(task, splits={**task.splits, "calibration": changed}))


def darker(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x * 0.5


def with_other_metric(subject: Subject) -> Subject:
    return replace(subject, task=replace(make_task(), classes=("a", "b", "c", "d")))


@pytest.mark.parametrize(
    "change",
    [
        with_other_weights,
        with_other_data,
        with_other_metric,
        lambda s: replace(s, teachers=(make_net(),)),
        lambda s: replace(s, augment=darker),
    ],
)
def test_another_network_or_data_has_another_key(change: Callable[[Subject], Subject]) -> None:
    tools = {"torch": "1"}
    usual = key_of(begin(make_subject()), TUNE, tools)
    assert key_of(begin(make_subject()), TUNE, tools) == usual
    assert key_of(begin(change(make_subject())), TUNE, tools) != usual


def test_settings_tools_and_machine_are_in_the_key() -> None:
    state, tools = begin(make_subject()), {"torch": "1"}
    usual = key_of(state, TUNE, tools)
    assert key_of(state, msgspec.structs.replace(TUNE, seed=1), tools) != usual
    assert key_of(state, TUNE, {"torch": "2"}) != usual
    known = Provenance(state, tools)
    assert known.ingredients(TUNE, state).machine is None
    assert known.ingredients(PRUNE, state).machine is None
    timed = known.ingredients(PruneChannels(speedup=1.5), state).machine
    assert timed is not None
    assert "onnxruntime" in timed


def test_the_device_is_in_the_key_of_what_trains_there() -> None:
    here = begin(make_subject())
    there = replace(here, subject=replace(here.subject, device=torch.device("cuda")))
    known, mixed = Provenance(here, {}), msgspec.structs.replace(TUNE, mixed_precision=True)
    assert known.ingredients(TUNE, there).machine == "cuda"
    assert known.ingredients(PRUNE, there).machine is None
    for state, name in ((here, ""), (there, "cuda, ")):
        said = known.ingredients(mixed, state).machine
        assert said in (f"{name}bfloat16", f"{name}no bfloat16")


def test_a_digest_of_data_reads_every_sample() -> None:
    task = make_task()
    whole = data_digest(task, "calibration")
    (images,), labels = task.splits["calibration"]()
    for other in (Samples((images[:-1],), labels[:-1]), Samples((images,), np.roll(labels, 1))):
        changed = replace(task, splits={"calibration": lambda other=other: other})
        assert data_digest(changed, "calibration") != whole
