"""The README: short, narrow, and true."""

import re
from pathlib import Path

import pytest

from edgedl.compress.targets.target import TARGETS, Target
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.tools.bench.result import load_result
from edgedl.tools.report.summary import compact_rows

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# Row of the README -> the precision of files that it is about.
PRECISIONS = {
    "int8, calibrated or trained": "int8",
    "int8, ranges found while running": "dynamic_int8",
    "int8 weights": "int8_weights",
    "int4 weights": "int4_weights",
    "int8 weights, int16 activations": "int8_int16",
    "FP8": "fp8",
    "float16": "float16",
    "bfloat16": "bfloat16",
}


def table(header: str) -> list[list[str]]:
    """Return the rows of the table whose first header it is."""
    lines = README.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_it_is_short_and_its_tables_are_narrow() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    assert all(len(line) <= 100 for line in lines if line.startswith("|"))


def test_the_result_has_four_columns_and_the_numbers_of_the_file() -> None:
    result = load_result(ROOT / "docs" / "results" / "resnet8-fashion_mnist.json")
    known = {row[0]: row for row in compact_rows(result)}
    names = {"ONNX Runtime": "ort", "TFLite": "tflite"}
    rows = table("file")
    assert len(rows) == 4
    for file, size, drop, ratio in rows:
        runtime, precision = file.split(", ")
        _, kilobytes, score, wanted_drop, wanted_ratio = known[f"{names[runtime]}-{precision}"]
        assert size == f"{kilobytes} KB"
        assert ratio == wanted_ratio
        assert drop == (f"baseline, {score}" if wanted_drop == "baseline" else wanted_drop)


@pytest.mark.parametrize("target", TARGETS, ids=RUNTIMES)
def test_ticks_are_what_the_targets_say(target: Target) -> None:
    column = 1 + RUNTIMES.index(target.runtime)
    ticks = {row[0]: bool(row[column]) for row in table("technique") if row[0] in PRECISIONS}
    assert ticks == {row: name in target.precisions for row, name in PRECISIONS.items()}


def test_columns_are_the_runtimes() -> None:
    header = next(line for line in README.splitlines() if line.startswith("| technique"))
    words = [cell.strip() for cell in header.strip("|").split("|")][1:]
    known = {"ONNX Runtime": "ort", "OpenVINO": "openvino", "TFLite": "tflite"}
    assert tuple(known.get(w, w.lower()) for w in words) == tuple(RUNTIMES)


def test_the_picture_is_the_reports_chart_of_that_file() -> None:
    from edgedl.tools.report.page import draw_chart

    result = load_result(ROOT / "docs" / "results" / "resnet8-fashion_mnist.json")
    kept = (ROOT / "docs" / "pictures" / "chart.svg").read_text()

    def texts(svg: str) -> list[str]:
        return re.findall(r"<!-- (.*?) -->", svg)

    assert texts(draw_chart(result)) == texts(kept)
