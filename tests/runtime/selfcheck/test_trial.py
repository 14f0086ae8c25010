"""Files that end the process which loads them are found, whatever the files before them do."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from harmful_files import crashing_file, raising_file

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.selfcheck import trial
from edgedl.runtime.selfcheck.trial import NotStartedError, try_files

Replace = Callable[[str, bytes], None]
CRASHED = "crashes its runtime when it is loaded or run (signal 11 (SIGSEGV))"


def test_a_healthy_bundle_gives_its_golden_outputs(compressed: CompressedModel) -> None:
    artifacts = [a for a in compressed.bundle.manifest.artifacts if a.backend != "tensorrt"]
    trials = try_files(compressed.bundle, artifacts)
    assert list(trials) == [artifact.name for artifact in artifacts]
    for each in trials.values():
        assert (each.failure, each.refused) == ("", None)
        assert each.golden is not None
        assert each.golden.passed


def test_what_a_runtime_refuses_with_an_error_is_no_failure(compressed: CompressedModel) -> None:
    (tensorrt,) = [
        a
        for a in compressed.bundle.manifest.artifacts
        if a.backend == "tensorrt" and a.precision == "float32"
    ]
    other = compressed.bundle.artifact("ort-float32")
    trials = try_files(compressed.bundle, [tensorrt, other])
    assert [each.failure for each in trials.values()] == ["", ""]
    refused = trials[tensorrt.name].refused
    assert refused is not None
    assert refused[0] == "BackendUnavailableError"


@pytest.mark.slow
def test_a_crash_is_found_behind_a_file_that_raises_and_behind_another_crash(
    bundle_copy: Path, replace_file: Replace
) -> None:
    bundle = Bundle.open(bundle_copy)
    paths = {a.name: a.path for a in bundle.manifest.artifacts}
    replace_file(paths["ort-float32"], raising_file(bundle))
    replace_file(paths["ort-float16"], crashing_file(bundle))
    replace_file(paths["ort-int8"], crashing_file(bundle))
    names = ["tflite-int8", "ort-float32", "ort-float16", "ort-int8", "tflite-float32"]
    found = failures(bundle_copy, names)
    assert list(found) == ["ort-float32", "ort-float16", "ort-int8"]
    assert found["ort-float16"] == found["ort-int8"] == CRASHED
    said = found["ort-float32"]
    assert said.startswith("raises ")
    assert " when it is loaded or run: " in said
    assert "Reshape" in said
    assert len(said.splitlines()) == 1
    # Nothing of this depends on the order.
    assert failures(bundle_copy, names[::-1]) == found


def test_a_child_that_dies_before_it_begins_blames_no_file(
    compressed: CompressedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = compressed.bundle
    artifact = bundle.artifact("ort-float32")
    real = subprocess.run
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(subprocess, "run", lambda command, **more: real(killed, **more))
    with pytest.raises(NotStartedError, match=r"\(signal 9 \(SIGKILL\)\): it said nothing"):
        try_files(bundle, [artifact])


def test_the_manifest_that_was_checked_counts(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    (bundle_copy / "manifest.json").write_text("{}")
    trials = try_files(bundle, [bundle.artifact("ort-float32")])
    assert trials["ort-float32"].golden is not None


def test_engines_have_time_to_be_built(compressed: CompressedModel) -> None:
    bundle = compressed.bundle
    engine, other = bundle.artifact("tensorrt-float32"), bundle.artifact("ort-float32")
    assert trial.limits(bundle, [other, engine], None) == ((60, 3600), None)
    seconds, memory = trial.limits(bundle, [other], None)
    assert seconds == (60,)
    assert memory is not None
    assert memory > 4 << 30


def failures(folder: Path, names: Sequence[str]) -> dict[str, str]:
    bundle = Bundle.open(folder)
    trials = try_files(bundle, [bundle.artifact(name) for name in names])
    return {name: each.failure for name, each in trials.items() if each.failure}
