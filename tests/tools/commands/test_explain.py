"""``edgedl explain``: the table, its JSON, and what it refuses."""

import json
from pathlib import Path

import pytest
from command import Run


def test_the_table_has_every_layer_the_worst_first(edgedl: Run, subject_file: Path) -> None:
    subject = f"{subject_file}:subject"
    done = edgedl("explain", subject, "--recipe", "static_w8c_a8", "--samples", 32)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    ratios = [float(c[3]) for c in cells if c[3] != "no noise"]
    assert ratios == sorted(ratios)
    assert {"stem", "depthwise", "pointwise", "branch", "fc", "input"} <= {c[0] for c in cells}
    assert sum(float(c[2]) for c in cells) == pytest.approx(100, abs=0.5)
    assert "32 calibration samples" in done.stdout


def test_json_holds_the_same_and_nothing_else(edgedl: Run, subject_file: Path) -> None:
    done = edgedl("explain", f"{subject_file}:subject", "--samples", 16, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["recipe"] == "static_w8c_a8_rounded"
    assert found["samples"] == 16
    assert 0 <= found["int8_score"] <= 1
    assert all(layer["float_cost"] is None for layer in found["layers"])
    macs = {layer["name"]: layer["macs_share"] for layer in found["layers"]}
    total = 144 * (8 * 27 + 8 * 9 + 8 * 8) + 36 * 4 * 8 + 12 * 4
    assert macs["stem"] == pytest.approx(144 * 8 * 27 / total)


@pytest.mark.slow
def test_time_prices_the_worst_layers(edgedl: Run, subject_file: Path) -> None:
    arguments = ["--samples", 16, "--time", "ort", "--top", 1]
    done = edgedl("explain", f"{subject_file}:subject", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, *others = [layer for layer in found["layers"] if layer["operator"] != "input"]
    cost = first["float_cost"]
    assert cost["ci95_ratio"][0] <= cost["ratio"] <= cost["ci95_ratio"][1]
    assert cost["ms"] == pytest.approx(found["noise_floor"]["ms"] * (cost["ratio"] - 1), rel=0.2)
    assert all(layer["float_cost"] is None for layer in others)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "float"], "choose one with quantize_static"),
        (["--recipe", "dynamic_w8_afp32"], "choose one with quantize_static"),
        (["--recipe", "none"], "there is no recipe"),
        (["--samples", 0], "--samples"),
        (["--top", 2], "add --time ort"),
        (["--time", "runtime"], "unknown runtime 'runtime'; known: ort"),
    ],
)
def test_what_is_refused(edgedl: Run, subject_file: Path, arguments: list, words: str) -> None:
    done = edgedl("explain", f"{subject_file}:subject", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
