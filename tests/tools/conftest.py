"""Fixtures of the command-line tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Done, Run

from edgedl.tools.cli import main


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


@pytest.fixture
def subject_file(tmp_path: Path) -> Path:
    """A user's file with a small network; ``subject`` is the function to name."""
    path = tmp_path / "mine.py"
    tests = Path(__file__).resolve().parent.parent
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(tests)!r})\n"
        "from tiny import make_subject as subject\n"
    )
    return path
