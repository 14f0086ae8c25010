"""The user's own files: where they are looked for, and what is said of what is wrong in them."""

import sys
from pathlib import Path

import pytest

from edgedl.compress.user_code import call_user_function, load_user_class
from edgedl.runtime.errors import BadInputError


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_the_given_folder_comes_before_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "here_too.py", "class Mine:\n    place = 'working directory'\n")
    inside = tmp_path / "inside"
    assert load_user_class("here_too.py:Mine", inside).place == "working directory"  # type: ignore[attr-defined]
    write(inside, "here_too.py", "class Mine:\n    place = 'folder'\n")
    assert load_user_class("here_too.py:Mine", inside).place == "folder"  # type: ignore[attr-defined]


def test_a_missing_file_is_named_with_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"no file 'gone.py' in .*inside or in .*"):
        load_user_class("gone.py:Mine", tmp_path / "inside")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no class 'Mine'"),
        ("def Mine():\n    pass\n", "has no class 'Mine': it is function"),
        ("x = 1\ny = 1 / 0\n", "line 2: ZeroDivisionError"),
        ("x = (\n", "line 1: SyntaxError"),
        ("import not_to_be_found_anywhere\n", "line 1: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    write(tmp_path, "wrong_code.py", text)
    with pytest.raises(BadInputError, match=said):
        load_user_class("wrong_code.py:Mine", tmp_path)


def test_a_file_does_not_take_the_place_of_a_module_of_the_same_name(tmp_path: Path) -> None:
    import fractions

    path = write(tmp_path, "fractions.py", "class Mine:\n    pass\n\n\ndef one():\n    return 1\n")
    found = load_user_class("fractions.py:Mine", tmp_path)
    assert sys.modules["fractions"] is fractions
    assert sys.modules[found.__module__].__file__ == str(path)
    assert call_user_function(f"{path}:one") == 1
