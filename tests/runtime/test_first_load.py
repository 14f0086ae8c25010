"""A file that is new on a machine is tried before it is loaded; what crashes costs nothing more."""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Refused
from harmful_files import crashing_file, endless_file, greedy_file
from tiny import make_subject

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.targets.named import ORT
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.seal import MANIFEST, write_signature
from edgedl.runtime.bundle.signature import Trust, sign
from edgedl.runtime.errors import BadInputError, FileFailedError, IntegrityError
from edgedl.runtime.first_load import OtherOutputsWarning
from edgedl.runtime.known_files import PLACE
from edgedl.runtime.runner import Runner
from edgedl.runtime.selfcheck import trial

Replace = Callable[[str, bytes], None]
NAME = "ort-float32"


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has seen no file yet."""
    folder = tmp_path / "known"
    monkeypatch.setenv(PLACE, str(folder))
    return folder


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("a process is started")

    monkeypatch.setattr(subprocess, "run", refuse)


def test_a_new_file_is_tried_once(bundle_copy: Path, known: Path) -> None:
    with Runner.open(bundle_copy, NAME) as runner:
        assert runner.tried_s > 0
        assert runner.differs == ""
    (kept,) = known.iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    with Runner.open(bundle_copy, NAME) as runner:
        assert runner.tried_s == 0
    # Another file is another matter, also of the same bundle.
    with Runner.open(bundle_copy, "ort-int8") as runner:
        assert runner.tried_s > 0


@pytest.mark.slow
def test_what_was_made_here_is_known(
    tmp_path: Path, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    compress(make_subject(), load_recipe("float"), (ORT,), folder)
    assert len(list(known.iterdir())) == len(Bundle.open(folder).manifest.artifacts)
    monkeypatch.setattr(trial, "subprocess", None)
    with Runner.open(folder, NAME) as runner:
        assert runner.tried_s == 0


def test_a_crash_costs_another_process(
    refused: Refused, bundle_copy: Path, replace_file: Replace, known: Path
) -> None:
    bundle = Bundle.open(bundle_copy)
    replace_file(bundle.artifact(NAME).path, crashing_file(bundle))
    with refused(FileFailedError, NAME, "crashes its runtime", "SIGSEGV"):
        Runner.open(bundle_copy, NAME)
    assert not known.exists()
    with Runner.open(bundle_copy, NAME, policy="prefer") as runner:
        assert runner.artifact.name != NAME
        assert "crashes its runtime" in runner.instead


@pytest.mark.slow
def test_a_file_that_takes_more_memory_than_it_may_is_refused(
    refused: Refused, bundle_copy: Path, replace_file: Replace, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(bundle_copy)
    replace_file(bundle.artifact(NAME).path, greedy_file(bundle))
    monkeypatch.setattr(trial, "LIMIT_MIB", 512)
    with refused(FileFailedError, NAME, "when it is loaded or run"):
        Runner.open(bundle_copy, NAME)
    # It is the limit that ends it: with more, it runs, and gives something else than it must.
    monkeypatch.setattr(trial, "LIMIT_MIB", 4096)
    with refused(IntegrityError, "the network gives"):
        Runner.open(bundle_copy, NAME)


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [False, True], ids=["signals", "signals blocked"])
def test_a_file_without_end_is_given_up(
    refused: Refused,
    bundle_copy: Path,
    replace_file: Replace,
    monkeypatch: pytest.MonkeyPatch,
    blocked: bool,
) -> None:
    monkeypatch.setattr(trial, "LIMIT_S", 3)
    bundle = Bundle.open(bundle_copy)
    replace_file(bundle.artifact(NAME).path, endless_file(bundle))
    if blocked:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        with refused(FileFailedError, NAME, "does not answer within 3 s"):
            Runner.open(bundle_copy, NAME)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])


def test_a_trial_that_does_not_begin_blames_no_file(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Runner.open(bundle_copy, NAME) as runner:
        assert runner.differs == ""
    assert f"{NAME} is loaded without a trial: the process" in caplog.text
    assert "ended before the first (exit code 1)" in caplog.text


def test_limits_are_multiplied(refused: Refused, monkeypatch: pytest.MonkeyPatch,
                               compressed: CompressedModel) -> None:  # fmt: skip
    bundle = compressed.bundle
    artifacts = [bundle.artifact(NAME)]
    (seconds,), memory = trial.limits(bundle, artifacts, None)
    assert memory is not None
    monkeypatch.setenv(trial.FACTOR, "2.5")
    assert trial.limits(bundle, artifacts, None) == ((2.5 * seconds,), round(2.5 * memory))
    monkeypatch.setenv(trial.FACTOR, "0.001")
    assert trial.limits(bundle, artifacts, None)[0] == (1,)
    for wrong in ("0", "-1", "nan", "much"):
        monkeypatch.setenv(trial.FACTOR, wrong)
        with refused(BadInputError, trial.FACTOR, wrong):
            trial.limits(bundle, artifacts, None)


def test_nothing_is_imported_from_the_folder_one_stands_in(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("json", "numpy", "msgspec"):
        (place / f"{name}.py").write_text("open('imported', 'w').close()\n")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    with Runner.open(bundle_copy, NAME) as runner:
        assert runner.tried_s > 0
    assert not (place / "imported").exists()


@pytest.fixture
def trust(bundle_copy: Path, tmp_path: Path) -> Trust:
    """Trust in the key that ``bundle_copy`` is signed with."""
    key = tmp_path / "key"
    subprocess.check_call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    signature, _ = sign((bundle_copy / MANIFEST).read_bytes(), key)
    write_signature(bundle_copy, signature)
    return Trust.read(tmp_path / "key.pub")


def test_a_signed_file_needs_no_process_and_gives_its_golden_outputs(
    bundle_copy: Path, known: Path, trust: Trust, no_processes: None
) -> None:
    with Runner.open(bundle_copy, NAME, trust=trust) as runner:
        assert runner.tried_s > 0
    assert len(list(known.iterdir())) == 1


def test_other_outputs_are_warned_of_at_every_start(
    bundle_copy: Path, replace_file: Replace
) -> None:
    with np.load(bundle_copy / "golden.npz") as archive:
        arrays = {**archive, f"{NAME}/0": archive[f"{NAME}/0"] + 1}
    np.savez(bundle_copy / "golden.npz", **arrays)
    replace_file("golden.npz", (bundle_copy / "golden.npz").read_bytes())
    for _ in range(2):
        with (
            pytest.warns(OtherOutputsWarning, match=f"{NAME}: its golden outputs .* differ"),
            Runner.open(bundle_copy, NAME) as runner,
        ):
            assert "allowed is" in runner.differs


def test_where_others_can_write_nothing_is_believed(bundle_copy: Path, known: Path) -> None:
    Runner.open(bundle_copy, NAME).close()
    known.chmod(0o777)
    with Runner.open(bundle_copy, NAME) as runner:
        assert runner.tried_s > 0


def test_where_nothing_can_be_kept_every_start_has_a_trial(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, "/dev/full/known")
    for _ in range(2):
        with Runner.open(bundle_copy, NAME) as runner:
            assert runner.tried_s > 0


def test_an_application_without_python_loads_the_file_itself(
    bundle_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_processes: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Runner.open(bundle_copy, NAME) as runner:
            assert runner.tried_s > 0
    assert f"{NAME} is loaded without a trial: this program is not Python's" in caplog.text


def test_a_bundle_runs_where_it_can_be_read_only(bundle_copy: Path) -> None:
    for path in (bundle_copy, *bundle_copy.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = sorted(os.listdir(bundle_copy))
        Runner.open(bundle_copy, NAME).close()
        assert sorted(os.listdir(bundle_copy)) == before
    finally:
        bundle_copy.chmod(0o755)
