"""What only an NVIDIA GPU can show. Elsewhere every test is skipped, with the reason."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.backends.engines import EngineBackend
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.selfcheck.golden import check_golden
from edgedl.runtime.tensorrt.library import open_library
from edgedl.runtime.tensorrt.profiles import Sizes
from edgedl.runtime.tensorrt.session import TensorRTSession
from edgedl.tools.jobs.compile_bundle import Wish, artifacts_to_compile, compile_here

pytestmark = pytest.mark.gpu
NAMES = ["tensorrt-float32", "tensorrt-float16", "tensorrt-int8"]


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> EngineBackend:
    monkeypatch.setenv("EDGEDL_ENGINES", str(tmp_path / "engines"))
    found = open_backend(request.param)
    availability = found.available()
    if not availability.usable:
        pytest.skip(availability.detail)
    return found


def test_engines_are_built_run_at_their_corners_and_give_the_golden_outputs(
    compressed: CompressedModel, backend: EngineBackend
) -> None:
    artifacts = artifacts_to_compile(compressed.bundle, backend, NAMES)
    wish = Wish(batch=Sizes(1, 4, 16))
    done = list(compile_here(compressed.bundle, backend, artifacts, wish))
    assert [c.artifact.name for c in done] == NAMES
    for compiled in done:
        assert compiled.golden is not None
        assert compiled.golden.passed, compiled.golden


def test_a_kept_engine_is_loaded_and_not_built(
    compressed: CompressedModel, backend: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = compressed.bundle.artifact("tensorrt-float16")
    with LoadedModel(compressed.bundle, artifact, backend=backend) as first:
        assert check_golden(first).passed

    def build(*_: object) -> None:
        raise AssertionError("it is built again")

    monkeypatch.setattr("edgedl.runtime.backends.engines.build_engine", build)
    with LoadedModel(compressed.bundle, artifact, backend=backend) as again:
        assert check_golden(again).passed


@pytest.fixture
def session(
    compressed: CompressedModel, backend: EngineBackend, request: pytest.FixtureRequest
) -> Iterator[TensorRTSession]:
    artifact = compressed.bundle.artifact("tensorrt-int8")
    built = backend.engine(compressed.bundle.read(artifact.path), artifact)
    library = open_library(backend.settings(artifact).library)
    made = TensorRTSession(
        library, built.engine, artifact.inputs, artifact.outputs, getattr(request, "param", False)
    )
    yield made
    made.close()


@pytest.mark.parametrize("session", [False, True], ids=["calls", "graph"], indirect=True)
def test_repeated_calls_give_the_same_answers(session: TensorRTSession, images: np.ndarray) -> None:
    expected = [session.run([images[: 1 + i]])[0] for i in range(4)]
    for _ in range(50):
        for i in range(4):
            np.testing.assert_array_equal(session.run([images[: 1 + i]])[0], expected[i])


def test_times_of_the_stages_and_of_the_layers_are_measured(
    session: TensorRTSession, images: np.ndarray
) -> None:
    session.run([images[:4]])
    assert session.times is not None
    assert all(ms > 0 for ms in session.times)
    layers = session.layer_times_ms([images[:4]])
    assert layers
    assert all(ms >= 0 for _, ms in layers)
