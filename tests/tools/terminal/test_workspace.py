"""Output folders."""

from pathlib import Path

import pytest

from edgedl.runtime.errors import BadInputError
from edgedl.tools.terminal.workspace import new_folder, only_run


@pytest.mark.parametrize("hold", [new_folder, only_run])
def test_the_root_is_no_new_folder(hold: object) -> None:
    with (
        pytest.raises(BadInputError, match="/ cannot be a new folder"),
        hold(Path("/")),  # type: ignore[operator]
    ):
        pass


def test_two_runs_cannot_write_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with only_run(out), pytest.raises(BadInputError, match="another run is writing"), only_run(out):
        pass
    with only_run(out):
        assert not out.exists()


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    half, other = tmp_path / ".o[u]t.12345678.partial", tmp_path / ".out.12345678.partial"
    mine = tmp_path / ".o[u]t.my-data.partial"
    for folder in (half, other, mine):
        (folder / "bundle").mkdir(parents=True)
    with only_run(tmp_path / "o[u]t"):
        assert not half.exists()
        assert other.exists()
        assert mine.exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that even root cannot write")
def test_where_nothing_can_be_made_no_other_run_is_to_blame() -> None:
    with (
        pytest.raises(BadInputError, match="/proc/out cannot be written"),
        only_run(Path("/proc/out")),
    ):
        pass
