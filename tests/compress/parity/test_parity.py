"""Parity measured again by hand, and parity of files that are wrong."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from built_files import built, first_samples
from file_readers import TFLiteFile, run_onnx
from tiny import make_net, make_task

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.artifacts.tolerance import output_steps
from edgedl.compress.graph.run import run_graph
from edgedl.compress.parity.graph_outputs import (
    FIRST_SAMPLES,
    FIRST_SAMPLES_OF_FLOATS,
    PARITY_SAMPLES,
    GraphOutputs,
)
from edgedl.compress.parity.outputs import measure_parity
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.state import ModelState
from edgedl.runtime.bundle.certificates import Parity


def outputs(state: ModelState, samples: int) -> GraphOutputs:
    return GraphOutputs(state.subject.task, samples)


def run_file(item: BuiltArtifact, x: np.ndarray) -> np.ndarray:
    if item.artifact.backend == "tflite":
        return TFLiteFile(item.content).run((np.ascontiguousarray(x.transpose(0, 2, 3, 1)),))[0]
    return run_onnx(item.content, (x,), item.artifact.backend == "ort")[0]


@pytest.mark.parametrize("name", ["ort-float32", "ort-int8", "tflite-int8", "tensorrt-int8"])
def test_parity_is_what_a_measurement_by_hand_finds(
    compressed: CompressedModel, int8_state: ModelState, name: str
) -> None:
    item = built(compressed, int8_state, name)
    parity = measure_parity(int8_state, item, outputs(int8_state, 100))
    assert parity.samples == (50 if name == "ort-float32" else 100)
    x = first_samples(parity.samples)
    found, expected = run_file(item, x), run_graph(item.graph, (x,))[0]
    with torch.no_grad():
        reference = make_net()(torch.tensor(x)).numpy()
    error = np.abs(found - expected)
    assert parity.max_abs_error == pytest.approx(float(error.max()), abs=1e-6)
    assert parity.mean_abs_error == pytest.approx(float(error.mean()), abs=1e-6)
    same = (found.argmax(1) == expected.argmax(1)).mean()
    assert parity.prediction_agreement == pytest.approx(same)
    assert parity.float32_agreement == (found.argmax(1) == reference.argmax(1)).mean()
    step = None
    if name.endswith("int8"):
        (step,) = output_steps(int8_state, item.target)
        assert parity.mean_lsb_error == pytest.approx(error.mean() / step, abs=1e-4)
    else:
        assert parity.mean_lsb_error is None
    (output,) = parity.outputs
    assert output.name == item.artifact.outputs[0].name
    assert output.max_abs_error == pytest.approx(float(error.max()), abs=1e-6)
    assert output.mean_lsb == (pytest.approx(parity.mean_lsb_error, abs=1e-4) if step else None)
    assert output.max_lsb == (pytest.approx(error.max() / step, abs=1e-4) if step else None)
    for value, exact in ((output.sqnr_db, expected), (output.float32_sqnr_db, reference)):
        noise = np.square(found.astype(np.float64) - exact).sum()
        decibels = 10 * np.log10(np.square(exact, dtype=np.float64).sum() / noise)
        # At float32's last digit, torch's own order of sums shows.
        assert min(value, 120) == pytest.approx(min(decibels, 120), abs=1e-2)


def test_every_artifact_of_the_bundle_agrees_with_its_graph(compressed: CompressedModel) -> None:
    for artifact in compressed.bundle.manifest.artifacts:
        parity = artifact.parity
        if artifact.precision == "bfloat16":
            assert parity is None
            assert "not run: " in artifact.check
            continue
        assert isinstance(parity, Parity)
        assert parity.samples in (FIRST_SAMPLES_OF_FLOATS, FIRST_SAMPLES, PARITY_SAMPLES)
        assert parity.max_abs_error <= artifact.golden_tolerances[0]
        if artifact.precision == "int8":
            # Integer average pools round where the reference does not: up to half a step.
            assert parity.mean_lsb_error <= 0.5
            assert parity.prediction_agreement >= 0.95
        else:
            assert parity.prediction_agreement >= 0.995


def test_the_runtime_is_named(compressed: CompressedModel) -> None:
    names = {a.name: a.parity.runtime for a in compressed.bundle.manifest.artifacts if a.parity}
    version = f"onnxruntime {onnxruntime.__version__}"
    assert names["ort-int8"] == version
    assert names["tensorrt-float32"] == f"{version}, optimizations off, for TensorRT"
    assert names["tensorrt-int8"] == "integer emulator, no GPU"
    assert names["tflite-int8"].startswith("ai-edge-litert ")


@pytest.mark.parametrize("name", ["ort-int8", "tflite-int8", "tensorrt-int8"])
def test_a_file_that_computes_something_else_is_found(
    compressed: CompressedModel, int8_state: ModelState, name: str
) -> None:
    item = built(compressed, int8_state, name)
    honest = measure_parity(int8_state, item, outputs(int8_state, 120))
    negated = replace(item, graph=_negated(item))
    parity = measure_parity(int8_state, negated, outputs(int8_state, 120))
    # The first two batches decide, or else all samples.
    assert honest.samples in (100, 150)
    assert parity.samples == 150
    assert parity.max_abs_error > 20 * max(
        honest.max_abs_error, item.artifact.golden_tolerances[0] / 3
    )
    assert parity.prediction_agreement < 0.9
    assert parity.float32_agreement == pytest.approx(honest.float32_agreement, abs=0.1)


def _negated(item: BuiltArtifact) -> torch.fx.GraphModule:
    class Negated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = item.graph

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -self.inner(x)

    return torch.fx.symbolic_trace(Negated())


def test_without_classes_there_is_no_agreement(
    compressed: CompressedModel, int8_state: ModelState
) -> None:
    task = replace(make_task(), classes=(), metric="error")
    state = replace(int8_state, subject=replace(int8_state.subject, task=task))
    parity = measure_parity(state, built(compressed, state, "ort-int8"), outputs(state, 50))
    assert parity.prediction_agreement is None
    assert parity.float32_agreement is None
    assert parity.mean_lsb_error is not None
