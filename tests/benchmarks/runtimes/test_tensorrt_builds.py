"""NVIDIA's builder takes the files of reference models of every family, without a GPU."""

import importlib.util

import pytest

from benchmarks.runtimes.tensorrt_builds import build_all
from edgedl.models.reference.table import find_model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp-fashion_mnist", "resnet8-cifar10", "lstm-watch"])
def test_engines_of_reference_models_are_built(name: str) -> None:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt-rtx is not installed")
    rows = list(build_all(find_model(name)))
    precisions = [row.precision for row in rows]
    assert precisions == ["float32", "float16", *([] if name == "lstm-watch" else ["int8"])]
    for row in rows:
        assert row.verdict == "built"
        assert row.engine_bytes is not None
        assert row.engine_bytes > 0
