"""``edgedl targets`` against the descriptions that files are made by."""

import json
from pathlib import Path

import pytest
from command import Run

from edgedl.compress.targets.target import load_target, target_names


def test_list_has_one_line_each(edgedl: Run) -> None:
    done = edgedl("targets")
    assert done.returncode == 0
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in lines] == target_names()
    for name, runtime, text in lines:
        assert (runtime, text) == (load_target(name).runtime, load_target(name).description)


def test_list_as_json(edgedl: Run) -> None:
    found = json.loads(edgedl("targets", "--json").stdout)
    assert [one["name"] for one in found] == target_names()
    assert {one["runtime"] for one in found} == {"ort", "openvino", "tflite", "tensorrt"}


@pytest.mark.parametrize("name", target_names())
def test_one_target(edgedl: Run, name: str) -> None:
    target = load_target(name)
    done = edgedl("targets", name)
    assert done.returncode == 0
    for words in (target.description, ", ".join(target.precisions), *target.refused.values()):
        assert words in done.stdout
    as_json = json.loads(edgedl("targets", name, "--json").stdout)
    assert as_json["precisions"] == list(target.precisions)
    assert set(as_json["integer_operators"]) == target.integer_operators


def test_a_target_of_ones_own(edgedl: Run, tmp_path: Path) -> None:
    path = tmp_path / "pi4.yaml"
    path.write_text("like: ort\ndescription: a board\nweight_bits: 5\n")
    done = edgedl("targets", path)
    assert done.returncode == 0
    assert "a board" in done.stdout
    assert "int8 with 5 bits" in done.stdout
    path = tmp_path / "pi5.yaml"
    path.write_text("like: oort\ndescription: a board\n")
    assert "did you mean 'ort'?" in edgedl("targets", path).stderr
