"""``edgedl operators`` answers from the tables, and as the files do that were run."""

import json
import re
from pathlib import Path

import pytest
import yaml
from command import Run

from edgedl.compress.graph.operators.table import ROWS

ROOT = Path(__file__).resolve().parents[3]
RUNTIMES = ("ort", "openvino", "tflite", "tensorrt")


def test_every_operator_has_a_line(edgedl: Run) -> None:
    done = edgedl("operators", "--json")
    rows = json.loads(done.stdout)
    assert [row["operator"] for row in rows] == [row.name for row in ROWS]
    for runtime in RUNTIMES:
        said = yaml.safe_load((ROOT / "compress/targets" / f"{runtime}.yaml").read_text())
        integers = {row["operator"] for row in rows if row["runtimes"][runtime] == "int8"}
        assert integers == set(said["integer_operators"])


def test_lines_for_a_part_of_a_name(edgedl: Run) -> None:
    lines = edgedl("operators", "SOFTMAX").stdout.splitlines()
    assert [c.strip() for c in lines[0].split("|")[1:6]] == ["operator", *RUNTIMES]
    assert [re.split(r"\W+", line)[1:6] for line in lines[2:4]] == [
        ["softmax", "int8", "float", "int8", "float"],
        ["log_softmax", "float", "float", "float", "float"],
    ]
    assert lines[4:] == ["tensorrt decides which other operators it computes in integers"]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("conv_transpose2d", ["OpenTransposed", "CropTransposed"]),
        ("conv2d", []),
        ("lstm", []),
        ("roll", ["JoinForms"]),
    ],
)
def test_rewrites_are_named(edgedl: Run, name: str, steps: list[str]) -> None:
    row = json.loads(edgedl("operators", name, "--json").stdout)[0]
    assert row["rewritten_by"] == steps


def test_an_unknown_operator_is_refused(edgedl: Run) -> None:
    done = edgedl("operators", "conv", "sofmax")
    assert done.returncode == 2
    assert "no operator has 'sofmax' in its name, did you mean 'softmax'?" in done.stderr
    assert len(done.stderr.splitlines()) == 1
