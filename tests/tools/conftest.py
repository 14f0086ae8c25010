"""Fixtures of the command-line tests."""

from pathlib import Path

import pytest


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
