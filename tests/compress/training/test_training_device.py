"""A training step makes every tensor on the device of its network.

No other device than the CPU is needed to see it: on meta, tensors have shapes and no values, and
operators refuse tensors of the CPU among them, but for single numbers. So a second test looks at
every call that makes a tensor, and asks that it names the device.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from listening import notes_to
from tiny import make_net
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from training_blobs import SETTINGS, Blobs, assert_same_weights, make_module

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.distill.teachers import Ensemble
from edgedl.compress.quantize.qat import learned_step
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.state import ModelState
from edgedl.compress.subject.score import score_module
from edgedl.compress.subject.subject import Subject
from edgedl.compress.training import TrainingSettings, set_aside, train
from edgedl.compress.training.losses import fine_tuning_loss
from edgedl.compress.training.mixed_precision import has_bfloat16, no_bfloat16
from edgedl.compress.training.processes import OneProcess
from edgedl.compress.training.task_batches import Targets
from edgedl.runtime.task.task import ArrayTask

META = torch.device("meta")
TUNE = FineTune(epochs=2, samples=32, batch_size=16, learning_rate=0.01, distil=0.5)
QAT = TrainQuantized(
    epochs=2, samples=16, batch_size=8, distil=0.5, learn="scales_and_offsets", ema_decay=0.5
)


class NoNumbers(OneProcess):
    """Reads no value: on meta there is none."""

    def mean(self, value: Tensor) -> float:
        assert value.device == META
        assert value.shape == ()
        return 1.0


class TaughtBlobs:
    """Batches on the CPU with a teacher's answers, as ``TaskBatches`` gives them."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher, self.blobs = teacher, Blobs()

    def __len__(self) -> int:
        return len(self.blobs)

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Targets]]:
        for inputs, labels in self.blobs.epoch(generator):
            yield inputs, Targets(labels, self.teacher(inputs.to(META)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"optimizer": "adamw", "schedule": "cosine", "max_gradient_norm": 1.0},
        {"accumulate": 3},
        {"patience": 1},
        {"mixed_precision": True},
    ],
)
@pytest.mark.parametrize("classes", [("a", "b", "c"), ()])
def test_a_run_on_meta_mixes_in_nothing_of_the_cpu(
    change: dict[str, Any], classes: tuple[str, ...]
) -> None:
    module = make_module(norm=True).to(META)
    teacher = Ensemble((make_module(), make_module()), 2.0 if classes else None).to(META)
    task = ArrayTask("t", {}, metric="m", classes=classes)
    distance = fine_tuning_loss(task, 1.0, 2.0)
    heard: list[str] = []
    records = train(
        module,
        TaughtBlobs(teacher),
        lambda y, t: distance((y,), t),
        replace(SETTINGS, epochs=2, **change),
        processes=NoNumbers(),
        progress=notes_to(heard.append),
    )
    assert len(records) == 2
    assert all(t.device == META for t in (*module.parameters(), *module.buffers()))
    assert (no_bfloat16(META) in heard) == ("mixed_precision" in change)


class DeviceNamed(TorchFunctionMode):
    """Refuses what makes a tensor without a device, or a generator that has one, in the project."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in _device_constructors() and not {"device", "generator"} & given.keys():
            frame = sys._getframe(1)
            # The lines around the step: data are read, drawn and changed on the CPU.
            module = str(frame.f_globals.get("__name__"))
            if module.startswith("edgedl.") and not module.endswith(".task_batches"):
                place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise AssertionError(f"{func.__name__} without a device at {place}")
        return func(*args, **given)


def with_training(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Watch the training loop of stages; return what counts its runs."""
    runs: list[int] = []
    real = set_aside.train

    def watched(*args: Any, **more: Any) -> Any:
        runs.append(1)
        with DeviceNamed():
            return real(*args, **more)

    monkeypatch.setattr(set_aside, "train", watched)
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"mixed_precision": True, "optimizer": "adamw", "accumulate": 2},
        {"features": ("stem",), "feature_loss": "projection"},
        {"features": ("stem",), "feature_loss": "attention", "ema_decay": 0.5},
        {"features": ("stem",), "feature_loss": "relational", "answer_cache_bytes": 10**6},
        {"patience": 1, "distil": 1.0},
    ],
)
def test_fine_tuning_names_the_device_of_every_tensor_it_makes(
    float_state: ModelState,
    change: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    runs = with_training(monkeypatch)
    teachers = () if "features" in change else (make_net(), make_net())
    subject = replace(float_state.subject, teachers=teachers)
    state = replace(float_state, subject=subject, workspace=tmp_path)
    msgspec.structs.replace(TUNE, **change).apply(state)
    assert runs == [1]


def watched_backward(real: Callable[..., Any]) -> Any:
    """Watch a gradient, too: autograd calls it outside of any mode."""

    def backward(ctx: Any, *gradients: Tensor) -> Any:
        with DeviceNamed():
            return real(ctx, *gradients)

    return staticmethod(backward)


def test_quantization_aware_training_names_the_device_of_every_tensor_it_makes(
    int8_state: ModelState, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = with_training(monkeypatch)
    for function in (learned_step._LearnedActivation, learned_step._LearnedWeight):
        monkeypatch.setattr(function, "backward", watched_backward(function.backward))
    QAT.apply(int8_state)
    assert runs == [1]


def test_the_watch_sees_a_tensor_without_a_device() -> None:
    with DeviceNamed(), pytest.raises(AssertionError, match="zeros without a device"):
        eval("torch.zeros(())", {"torch": torch, "__name__": "edgedl.compress.x"})


def test_stages_train_on_the_subjects_device_and_write_it_down(
    float_state: ModelState, int8_state: ModelState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meta, where nothing can be trained, in place of a GPU: what is moved is on record."""
    moves: list[tuple[torch.device, set[int]]] = []

    @contextmanager
    def on_device(device: torch.device, *modules: nn.Module) -> Iterator[None]:
        moves.append((device, {id(m) for m in modules}))
        yield

    for stage, state in ((TUNE, float_state), (QAT, int8_state)):
        module = sys.modules[type(stage).__module__]
        monkeypatch.setattr(module, "on_device", on_device)
        monkeypatch.setattr(module, "to_device", lambda value, device: value)
        subject = replace(state.subject, device=torch.device("cuda", 1))
        done = stage.apply(replace(state, subject=subject))
        device, modules = moves[-1]
        assert device == subject.device
        if stage is QAT:
            assert modules >= {id(state.graph), id(state.quantized.graph)}  # type: ignore[union-attr]
        else:
            assert id(subject.module) in modules
        assert done.history[-1].settings["device"] == "cuda:1"
        assert "device" not in stage.apply(state).history[-1].settings


def test_a_subject_takes_the_name_of_a_device(float_state: ModelState) -> None:
    subject = replace(float_state.subject, device="cuda")  # type: ignore[arg-type]
    assert subject.device == torch.device("cuda")
    assert Subject("s", nn.Identity(), subject.task).device == torch.device("cpu")


def test_a_checkpoint_of_another_device_is_gone_on_with(tmp_path: Path) -> None:
    """What is loaded is put on the CPU first, then where the network is."""
    path = tmp_path / "checkpoint.pt"
    settings = replace(SETTINGS, optimizer="adamw", ema_decay=0.9, patience=9)
    whole, part = make_module(norm=True), make_module(norm=True)
    loss = nn.functional.cross_entropy
    train(whole, Blobs(), loss, settings)

    class StopError(Exception):
        pass

    def stop(epoch: int, step: int, value: float) -> None:
        if epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        train(part, Blobs(), loss, settings, path, stop)
    state = torch.load(path, weights_only=True)
    places: list[Any] = []
    real = torch.load

    def load(*args: Any, **more: Any) -> Any:
        places.append(more.get("map_location"))
        return real(*args, **more)

    torch.load, loaded = load, make_module(norm=True)
    try:
        train(loaded, Blobs(), loss, settings, path)
    finally:
        torch.load = real
    assert places == ["cpu"]
    assert state["average"]
    assert_same_weights(loaded, whole)


def test_a_network_is_scored_where_it_is(float_state: ModelState) -> None:
    subject = float_state.subject
    expected = score_module(subject.module, subject.task)

    seen: list[torch.device] = []

    class Elsewhere(nn.Module):
        """Has its weights on meta and answers with numbers, as a GPU would."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, device=META))

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.device)
            return torch.zeros(len(x), 4)

    net = Elsewhere()
    assert score_module(net, subject.task).shape == expected.shape
    assert set(seen) == {META}


def test_bfloat16_is_a_matter_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for has in (True, False):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has
        )
        assert has_bfloat16(cuda) is has
    assert not has_bfloat16(META)
    assert no_bfloat16(cuda).startswith("cuda has no bfloat16")
    assert no_bfloat16().startswith("this processor has no bfloat16")


def test_settings_say_nothing_of_devices() -> None:
    assert "device" not in TrainingSettings.__dataclass_fields__
