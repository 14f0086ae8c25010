"""A model replaced while calls go on: no call is lost, none has a mixed answer."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.golden import GOLDEN, encode_golden, golden_inputs
from edgedl.runtime.bundle.seal import MANIFEST, write_signature
from edgedl.runtime.bundle.signature import Trust, sign
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.runner import Runner
from edgedl.runtime.shadow import Shadow

OLD, NEW = "ort-float32", "ort-int8"


@pytest.fixture
def runner(compressed: CompressedModel) -> Iterator[Runner]:
    with Runner.open(compressed.bundle.folder, OLD) as opened:
        yield opened


@pytest.fixture
def runs_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[LoadedModel, object], None]:
    """Return what gives a model another way to run."""

    def replace(model: LoadedModel, run: object) -> None:
        monkeypatch.setattr(model.session, "run", run)
        monkeypatch.setattr(model.session, "bind", lambda *_: None)

    return replace


def test_without_a_shadow_the_next_call_has_the_new_model(
    runner: Runner, compressed: CompressedModel, images: np.ndarray
) -> None:
    with Runner.open(compressed.bundle.folder, NEW) as other:
        (expected,) = other(images)
    (before,) = runner(images)
    outcome = runner.swap(compressed.bundle.folder, NEW).result(0)
    assert outcome.accepted
    assert runner.artifact.name == NEW
    (found,) = runner(images)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, before)


def test_a_shadow_computes_along_and_then_takes_over(
    runner: Runner, compressed: CompressedModel, images: np.ndarray
) -> None:
    (before,) = runner(images)
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=5, max_slowdown=1000)
    for _ in range(5):
        assert not waiting.done()
        np.testing.assert_array_equal(runner(images)[0], before)
    outcome = waiting.result(0)
    assert outcome.accepted
    assert outcome.compared == 5
    assert outcome.slowdown is not None
    assert outcome.slowdown > 0
    with Runner.open(compressed.bundle.folder, NEW) as other:
        (expected,) = other(images)
    assert outcome.same_class == np.mean(expected.argmax(1) == before.argmax(1))
    np.testing.assert_array_equal(runner(images)[0], expected)


def test_a_slow_new_model_is_dropped(
    runner: Runner, compressed: CompressedModel, images: np.ndarray, runs_as
) -> None:
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=3, max_slowdown=20)
    new = runner._shadow.new
    real = new.session.run

    def slow(inputs: list[np.ndarray]) -> list[np.ndarray]:
        time.sleep(0.1)
        return real(inputs)

    runs_as(new, slow)
    for _ in range(3):
        runner(images[:1])
    outcome = waiting.result(0)
    assert not outcome.accepted
    assert "times as long as the model before, allowed is 20" in outcome.reason
    assert runner.artifact.name == OLD
    # Another one can be tried.
    assert runner.swap(compressed.bundle.folder, NEW).result(0).accepted


@pytest.mark.parametrize("failure", ["raises", "NaN"])
def test_a_new_model_that_fails_costs_no_call(
    runner: Runner,
    compressed: CompressedModel,
    images: np.ndarray,
    runs_as,
    failure: str,
) -> None:
    (before,) = runner(images)
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=100)

    def fails(inputs: list[np.ndarray]) -> list[np.ndarray]:
        if failure == "raises":
            raise RuntimeError("out of memory")
        return [np.full((len(images), 4), np.nan, np.float32)]

    runs_as(runner._shadow.new, fails)
    np.testing.assert_array_equal(runner(images)[0], before)
    outcome = waiting.result(0)
    assert not outcome.accepted
    assert ("out of memory" if failure == "raises" else "NaN") in outcome.reason
    assert runner.artifact.name == OLD
    np.testing.assert_array_equal(runner(images)[0], before)


def test_a_waiter_cannot_cancel_what_calls_decide(
    runner: Runner, compressed: CompressedModel, images: np.ndarray
) -> None:
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=1, max_slowdown=1000)
    assert not waiting.cancel()
    runner(images)
    assert waiting.result(0).accepted


def test_other_shapes_than_before_are_a_failure(
    runner: Runner, compressed: CompressedModel, images: np.ndarray, runs_as
) -> None:
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=1)
    wide = [np.zeros((len(images), 9), np.float32)]
    runs_as(runner._shadow.new, lambda inputs: wide)
    assert runner(images)[0].shape == (len(images), 4)
    assert waiting.result(0).reason == "it gives [8, 9] where the model before gave [8, 4]"


def test_the_first_call_of_a_new_size_is_not_timed(
    runner: Runner, compressed: CompressedModel, images: np.ndarray, runs_as
) -> None:
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=2, max_slowdown=50)
    session = runner._shadow.new.session
    real, known = session.run, set()

    def compiles(inputs: list[np.ndarray]) -> list[np.ndarray]:
        if inputs[0].shape not in known:
            known.add(inputs[0].shape)
            time.sleep(0.2)
        return real(inputs)

    runs_as(runner._shadow.new, compiles)
    runner(images[:2])
    runner(images[:3])
    assert waiting.result(0).accepted


def test_the_trust_of_the_runner_holds_for_what_replaces_it(
    refused, bundle_copy: Path, compressed: CompressedModel, tmp_path: Path
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"1" * 32)
    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(raw)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    (tmp_path / "key.pub").write_bytes(public)
    write_signature(bundle_copy, sign((bundle_copy / MANIFEST).read_bytes(), tmp_path / "key")[0])
    trust = Trust.read(tmp_path / "key.pub")
    with Runner.open(bundle_copy, OLD, trust=trust) as runner:
        with refused(IntegrityError, "is not signed"):
            runner.swap(compressed.bundle.folder, NEW)
        assert runner.swap(bundle_copy, NEW).result(0).accepted


def test_a_runner_may_be_closed_by_what_it_was_given(
    compressed: CompressedModel, images: np.ndarray
) -> None:
    runner = Runner.open(compressed.bundle.folder, OLD)
    closed = threading.Event()

    def close(_: object) -> None:
        runner.close()
        closed.set()

    runner.submit(images).add_done_callback(close)
    assert closed.wait(10)
    with pytest.raises(BadInputError, match="closed"):
        runner(images)


def test_wrong_inputs_are_no_fault_of_the_new_model(
    runner: Runner, compressed: CompressedModel, images: np.ndarray
) -> None:
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=1, max_slowdown=1000)
    with pytest.raises(BadInputError):
        runner(images[:, :1])
    assert not waiting.done()
    runner(images)
    assert waiting.result(0).accepted


def test_what_cannot_replace_it_is_refused_and_the_old_one_goes_on(
    refused, runner: Runner, bundle_copy: Path, images: np.ndarray
) -> None:
    (before,) = runner(images)
    manifest = Bundle.open(bundle_copy).manifest
    (spec,) = manifest.inputs
    other = msgspec.structs.replace(manifest, inputs=(msgspec.structs.replace(spec, name="z"),))
    write_manifest(bundle_copy, other)
    with refused(BadInputError, "other inputs: z float32 [None, 3, 12, 12]; expected x float32"):
        runner.swap(bundle_copy, NEW)
    # A model that computes something else than where it was made.
    inputs = golden_inputs(Bundle.open(bundle_copy))
    wrong = {NEW: (np.zeros((5, 4), np.float32),)}
    (bundle_copy / GOLDEN).write_bytes(encode_golden(inputs, wrong))
    write_manifest(bundle_copy, msgspec.structs.replace(manifest, files=record_files(bundle_copy)))
    with refused(IntegrityError, NEW, "the model is not replaced"):
        runner.swap(bundle_copy, NEW)
    np.testing.assert_array_equal(runner(images)[0], before)


def test_one_swap_at_a_time_and_none_when_closed(
    refused, runner: Runner, compressed: CompressedModel
) -> None:
    waiting = runner.swap(compressed.bundle.folder, NEW, shadow=10)
    with refused(BadInputError, "another swap is going on"):
        runner.swap(compressed.bundle.folder, NEW)
    runner.close()
    assert waiting.result(0).reason == "the runner was closed"
    with refused(BadInputError, "this runner is closed"):
        runner.swap(compressed.bundle.folder, NEW)
    with refused(BadInputError, "this runner is closed"):
        runner.submit(np.zeros((1, 3, 12, 12), np.float32))


def test_calls_beyond_the_last_comparison_decide_the_same(
    compressed: CompressedModel, images: np.ndarray
) -> None:
    models = [LoadedModel(compressed.bundle, compressed.bundle.artifact(n)) for n in (OLD, NEW)]
    shadow = Shadow(*models, calls=1, max_slowdown=1000)
    outcomes = [shadow(images)[1] for _ in range(2)]
    assert all(outcome is not None and outcome.accepted for outcome in outcomes)


def test_submitted_calls_come_in_order(runner: Runner, images: np.ndarray) -> None:
    wanted = [runner(images[k : k + 1])[0] for k in range(8)]
    futures = [runner.submit(images[k : k + 1]) for k in range(8)]
    for future, expected in zip(futures, wanted, strict=True):
        np.testing.assert_array_equal(future.result(10)[0], expected)
    with pytest.raises(BadInputError, match="the network takes 1 inputs"):
        runner.submit(images, images).result(10)
    last = runner.submit(images)
    runner.close()
    assert last.done()


def test_inputs_and_outputs_by_name(runner: Runner, images: np.ndarray, refused) -> None:
    (name,) = (spec.name for spec in runner.bundle.manifest.inputs)
    found = runner.run({name: images})
    assert list(found) == [spec.name for spec in runner.bundle.manifest.outputs]
    np.testing.assert_array_equal(next(iter(found.values())), runner(images)[0])
    with refused(BadInputError, f"input '{name}' is missing"):
        runner.run({})
    with refused(BadInputError, "the network has no input 'y'"):
        runner.run({name: images, "y": images})


@pytest.mark.slow
def test_a_thousand_swaps_under_load(compressed: CompressedModel, images: np.ndarray) -> None:
    """No wrong answer, no lost call, no memory kept."""
    folder = compressed.bundle.folder
    answers = {}
    for name in (OLD, NEW, "tflite-int8"):
        with Runner.open(folder, name) as other:
            answers[name] = other(images[:1])[0]
    stop = threading.Event()
    process = psutil.Process()

    def call(runner: Runner) -> tuple[int, int]:
        calls = wrong = 0
        while not stop.is_set():
            (found,) = runner(images[:1])
            calls += 1
            wrong += not any(np.array_equal(found, y) for y in answers.values())
        return calls, wrong

    with Runner.open(folder, OLD) as runner, ThreadPoolExecutor(2) as pool:
        calling = [pool.submit(call, runner) for _ in range(2)]
        used = []
        for number in range(1000):
            name = (NEW, "tflite-int8", OLD)[number % 3]
            waiting = runner.swap(folder, name, shadow=number % 2, max_slowdown=1e6)
            assert waiting.result(30).accepted
            if number in (199, 999):
                used.append(process.memory_info().rss)
        stop.set()
        counts = [future.result(30) for future in calling]
    assert all(calls > 1000 for calls, _ in counts)
    assert sum(wrong for _, wrong in counts) == 0
    assert used[1] < 1.05 * used[0]
