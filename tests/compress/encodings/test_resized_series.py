"""A series that is stretched stays in integers on every runtime that has such a kernel."""

import numpy as np
import pytest
from file_readers import TFLiteFile, run_onnx
from prunable_networks import make
from small_networks import Quantized

from edgedl.compress.encodings.placement import float_islands
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import weight_bits


@pytest.fixture(scope="module")
def stretched() -> Quantized:
    # As many bits as the kernels of this processor add up without saturating.
    return Quantized(*make("stretched"), bits=weight_bits((ORT,)))


def test_nothing_computes_in_float(stretched: Quantized) -> None:
    graph = stretched.graph.graph
    assert graph.find_nodes(op="call_function", target=aten.upsample_nearest1d.vec)
    for target in (ORT, TFLITE):
        assert float_islands(graph, stretched.encodings, target) == []
    assert "upsample_nearest1d" not in TENSORRT.integer_operators


@pytest.mark.slow
def test_files_compute_what_torch_does(stretched: Quantized) -> None:
    found = (
        (ORT, run_onnx(stretched.onnx, stretched.arrays)),
        (TFLITE, TFLiteFile(stretched.tflite).run(stretched.arrays)),
    )
    for target, (output, *_) in found:
        (expected,) = stretched.outputs(stretched.emitted(target))
        assert np.abs(output - expected).max() <= 1.01 * stretched.steps[0]
