"""The support table is what the results on disk say."""

from pathlib import Path

import pytest

from edgedl.models.reference.pretrained import has_weights
from edgedl.models.reference.table import REFERENCE_MODELS
from edgedl.tools.bench.result import load_result
from edgedl.tools.report.support import render

DOCS = Path(__file__).resolve().parents[3] / "docs"
RESULTS = {path.stem: path for path in sorted((DOCS / "results").glob("*.json"))}


def test_the_page_is_what_the_results_say():
    results = {name: load_result(path) for name, path in RESULTS.items()}
    assert (DOCS / "reference-models.md").read_text() == render(results)


def test_every_trained_model_has_a_result():
    assert set(RESULTS) == {name for name, m in REFERENCE_MODELS.items() if has_weights(m)}


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_every_runtime_and_precision_has_a_row(name):
    result = load_result(RESULTS[name])
    named = {c.name for c in result.candidates} | {item.what for item in result.not_measured}
    dynamic = REFERENCE_MODELS[name].family in ("recurrent", "attention")
    int8 = "dynamic_int8" if dynamic else "int8"
    for runtime in ("ort", "tflite", "tensorrt"):
        for precision in ("float32", "float16", int8):
            assert f"{runtime}-{precision}" in named
