"""Fixtures that several test files share."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from command import Done, Run
from hypothesis import settings
from tiny import make_subject

from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.tools.cli import main

# The same examples in every run: a failure must come from a change.
settings.register_profile("repeatable", derandomize=True)
# Other examples every night, and more of them.
settings.register_profile("nightly", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

EXIT_CODES = {
    "BadInputError": 2,
    "InvalidMeasurementError": 3,
    "BackendUnavailableError": 4,
    "CudaError": 4,
    "FileFailedError": 2,
    "EngineRefusedError": 2,
    "IntegrityError": 5,
}

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    """The tiny network, compressed for every target. Tests must not change its files."""
    folder = tmp_path_factory.mktemp("compressed") / "bundle"
    folder.mkdir()
    return compress(
        make_subject(), load_recipe("static_w8c_a8_rounded"), (ORT, TFLITE, TENSORRT), folder
    )


@pytest.fixture
def bundle_copy(compressed: CompressedModel, tmp_path: Path) -> Path:
    """A bundle of the tiny network that a test may damage."""
    target = tmp_path / "bundle"
    shutil.copytree(compressed.bundle.folder, target)
    return target


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Expect exactly this error class, its exit code, and one line that holds all words."""

    @contextmanager
    def check(error: type[Exception], *words: str) -> Iterator[None]:
        with pytest.raises(error) as caught:
            yield
        message = str(caught.value)
        assert type(caught.value) is error
        assert caught.value.exit_code == EXIT_CODES[error.__name__]
        assert len(message.splitlines()) == 1
        for word in words:
            assert word in message

    return check


@pytest.fixture(autouse=True, scope="session")
def no_results_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep results of stages apart from those of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def edgedl(capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command as the console script does, and catch its exit."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        captured = capfd.readouterr()
        code = stop.value.code
        return Done(code if isinstance(code, int) else 1, captured.out, captured.err)

    return run
