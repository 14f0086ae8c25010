"""NVIDIA's own builder, in its process: engines, refusals, crashes and what it says meanwhile."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.progress import Progress
from edgedl.runtime.tensorrt import building
from edgedl.runtime.tensorrt.build import BuildSettings, EngineRefusedError
from edgedl.runtime.tensorrt.building import build_engine
from edgedl.runtime.tensorrt.library import open_library
from edgedl.runtime.tensorrt.profiles import Sizes, corners, profile

RTX = "tensorrt_rtx"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec(RTX) is None, reason="tensorrt-rtx is not installed"
)


@pytest.fixture
def model(compressed: CompressedModel) -> bytes:
    artifact = compressed.bundle.artifact("tensorrt-int8")
    return compressed.bundle.read(artifact.path)


@pytest.fixture
def settings(compressed: CompressedModel) -> BuildSettings:
    return BuildSettings(RTX, compressed.bundle.artifact("tensorrt-int8").profile)


@needs_rtx
@pytest.mark.parametrize("name", ["tensorrt-float32", "tensorrt-float16", "tensorrt-int8"])
def test_engines_are_built_without_a_gpu(compressed: CompressedModel, name: str) -> None:
    artifact = compressed.bundle.artifact(name)
    content = compressed.bundle.read(artifact.path)
    settings = BuildSettings(RTX, artifact.profile, compute_capabilities=("8.6", "8.9"))
    built = build_engine(content, settings)
    assert len(built.engine) > len(content) // 2
    assert built.timings == b""


@needs_rtx
def test_bundles_have_the_profile_that_the_builder_accepted(compressed: CompressedModel) -> None:
    for artifact in compressed.bundle.manifest.artifacts:
        if artifact.backend != "tensorrt":
            assert artifact.profile == ()
            continue
        (sizes,) = artifact.profile
        assert sizes.input == artifact.inputs[0].name
        assert (sizes.min[0], sizes.opt[0], sizes.max[0]) == (1, 4, 16)
        assert corners(artifact.profile)[2] == {sizes.input: sizes.max}


@needs_rtx
def test_free_sizes_without_a_profile_are_refused_with_nvidias_words(model: bytes, refused) -> None:
    with refused(EngineRefusedError, "optimization profile"):
        build_engine(model, BuildSettings(RTX))


@needs_rtx
def test_what_is_no_model_is_refused(settings: BuildSettings, refused) -> None:
    with refused(EngineRefusedError):
        build_engine(b"no model", settings)


@needs_rtx
@pytest.mark.parametrize("capability", ["8.7", "", "86", "sm_86"])
def test_other_gpus_are_refused_before_the_build(
    model: bytes, settings: BuildSettings, capability: str, refused
) -> None:
    import msgspec

    other = msgspec.structs.replace(settings, compute_capabilities=(capability,))
    with refused(BadInputError, f"'{capability}'", "8.6"):
        build_engine(model, other)


def test_a_library_that_is_missing_says_how_it_is_installed(model: bytes, refused) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    with refused(BackendUnavailableError, "tensorrt is missing", "JetPack"):
        build_engine(model, BuildSettings("tensorrt"))
    with refused(BadInputError, "'trt'", "tensorrt_rtx"):
        open_library("trt")


def test_a_folder_that_stubs_leave_is_not_taken_for_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with refused(BackendUnavailableError, "tensorrt-stubs"):
        open_library("tensorrt")
    sys.modules.pop("tensorrt", None)


@needs_rtx
def test_progress_says_how_long_it_will_take(
    model: bytes, settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "NOTE_S", 0.0)
    heard: list[str] = []
    build_engine(model, settings, progress=Progress(lambda event: heard.append(event.text)))
    shares = [int(text.partition(" %")[0]) for text in heard]
    assert len(shares) > 3
    assert shares == sorted(shares)
    assert all(text.endswith(" left") for text in heard)


def _child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let another program stand in for the builder's process."""
    start = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return start([sys.executable, "-c", code, command[-1]], **options)

    monkeypatch.setattr(building.subprocess, "Popen", popen)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11 (SIGSEGV)"),
        ("raise ImportError('no libnvinfer')", "exit code 1: ImportError: no libnvinfer"),
        ("pass", "exit code 0"),
        ("print('{\"share\": 0.5}', flush=True); raise SystemExit(3)", "exit code 3"),
    ],
)
def test_whatever_becomes_of_the_builders_process_is_a_refusal(
    code: str, words: str, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    _child(monkeypatch, code)
    with refused(EngineRefusedError, words):
        build_engine(b"", BuildSettings(RTX))


def test_a_build_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch, refused) -> None:
    _child(monkeypatch, "import time; time.sleep(60)")
    with refused(EngineRefusedError, "no engine within 0.2 s"):
        build_engine(b"", BuildSettings(RTX), timeout_s=0.2)


def test_what_the_process_says_is_what_is_raised(monkeypatch: pytest.MonkeyPatch, refused) -> None:
    said = json.dumps({"error": "BadInputError", "reason": "no such thing"})
    _child(monkeypatch, f"print('a note'); print({said!r})")
    with refused(BadInputError, "no such thing"):
        build_engine(b"", BuildSettings(RTX))


@pytest.mark.parametrize("text", ["", "1:2", "a", "0", "3:2:4", "1:2:3:4", "1:5:4", "-1"])
def test_sizes_that_are_none_are_refused(text: str, refused) -> None:
    with refused(BadInputError, "izes"):
        Sizes.read(text)


def test_a_file_without_free_sizes_needs_no_profile(compressed: CompressedModel) -> None:
    import msgspec

    (spec,) = compressed.bundle.artifact("tensorrt-int8").inputs
    assert profile([msgspec.structs.replace(spec, shape=(4, *spec.shape[1:]))]) == ()
    (sizes,) = profile([spec], batch=Sizes(2, 3, 5))
    assert [shape[0] for shape in (sizes.min, sizes.opt, sizes.max)] == [2, 3, 5]
