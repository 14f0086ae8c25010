"""The lint's rules one by one, NVIDIA's own verdict, and what happens when its process fails."""

import importlib.util
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from file_readers import run_onnx
from onnx import TensorProto, helper, numpy_helper
from small_networks import network

from edgedl.compress.export.tensorrt import check as tensorrt
from edgedl.compress.export.tensorrt.check import check_tensorrt
from edgedl.compress.export.tensorrt.lint import lint
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.targets.named import TENSORRT
from edgedl.runtime.tensorrt.build import EngineRefusedError

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)


def model(*nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """Return a model from x [N, 4] to y [N, 4]."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("some.vendor", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def pair(dtype: str = "int8", zero_point: int = 0) -> onnx.ModelProto:
    """Return a model of one quantize/dequantize pair."""
    return model(
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dequantize"),
        s=np.float32(0.1),
        z=np.array(zero_point, dtype),
    )


def dequantized_bias() -> onnx.ModelProto:
    return model(
        helper.make_node("DequantizeLinear", ["b", "s"], ["c"], name="bias"),
        helper.make_node("Add", ["x", "c"], ["y"]),
        b=np.arange(4, dtype=np.int32),
        s=np.float32(0.1),
    )


def operator(kind: str, domain: str = "") -> onnx.ModelProto:
    return model(helper.make_node(kind, ["x"], ["y"], name="node", domain=domain))


def computed_zero_point() -> onnx.ModelProto:
    return model(
        helper.make_node("Cast", ["z"], ["zero"], to=TensorProto.INT8),
        helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["y"], name="dequantize"),
        s=np.float32(0.1),
        z=np.float32(0),
    )


@pytest.mark.parametrize(
    ("make", "problems"),
    [
        (pair, []),
        (lambda: pair("uint8"), ["'quantize' is uint8", "'dequantize' is uint8"]),
        (lambda: pair("int8", 3), ["'quantize' has a zero point", "'dequantize' has a zero point"]),
        (dequantized_bias, ["'bias' dequantizes an int32 bias"]),
        (computed_zero_point, ["'quantize' is not a constant", "'dequantize' is not a constant"]),
        *(
            ((lambda kind=kind: operator(kind)), [f"operator {kind} ('node') is not supported"])
            for kind in (
                "QLinearConv",
                "QLinearMatMul",
                "DynamicQuantizeLinear",
                "MatMulInteger",
                "ConvInteger",
            )
        ),
    ],
)
def test_lint_finds_each_problem_and_names_the_node(
    make: Callable[[], onnx.ModelProto], problems: list[str]
) -> None:
    found = lint(make())
    assert len(found) == len(problems)
    for text, part in zip(found, problems, strict=True):
        assert part in text
        assert len(text.splitlines()) == 1


def test_files_for_onnx_runtime_are_refused_by_the_lint_and_those_for_tensorrt_are_not() -> None:
    net = network("operators")
    assert "uint8" in lint(onnx.load_from_string(net.onnx))[0]
    assert lint(onnx.load_from_string(net.tensorrt)) == []
    verdict = check_tensorrt(net.onnx)
    assert not verdict.accepted
    assert verdict.checker == "edgedl's TensorRT lint"


def test_without_the_optimizer_the_file_computes_what_the_emitted_graph_computes() -> None:
    net = network("operators")
    (found,) = run_onnx(net.tensorrt, net.arrays, optimize=False)
    (expected,) = net.outputs(net.emitted(TENSORRT))
    np.testing.assert_allclose(found, expected, atol=0.02 * net.steps[0])


@needs_rtx
def test_nvidias_builder_accepts_the_emitted_file() -> None:
    verdict = check_tensorrt(network("operators").tensorrt)
    assert verdict.accepted, verdict.reason
    assert verdict.checker.startswith("tensorrt-rtx 1")
    assert "no GPU here" in verdict.describe()


@needs_rtx
def test_nvidias_parser_refuses_operators_it_does_not_know() -> None:
    verdict = check_tensorrt(operator("Det").SerializeToString())
    assert not verdict.accepted
    assert verdict.checker.startswith("tensorrt-rtx")
    assert verdict.reason
    assert verdict.describe().startswith("refused (")


@needs_rtx
def test_what_nvidias_parser_says_of_a_zero_point_the_lint_says_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asymmetric = pair("int8", 3).SerializeToString()
    assert check_tensorrt(asymmetric).checker == "edgedl's TensorRT lint"
    monkeypatch.setattr(tensorrt, "lint", lambda _: [])
    verdict = check_tensorrt(asymmetric)
    assert not verdict.accepted
    assert verdict.checker.startswith("tensorrt-rtx")
    assert "zero point" in verdict.reason.lower()


@needs_rtx
def test_bundles_record_nvidias_verdict(compressed: CompressedModel) -> None:
    for artifact in compressed.bundle.manifest.artifacts:
        if artifact.backend == "tensorrt":
            assert artifact.check.startswith("accepted by tensorrt-rtx")
        else:
            assert artifact.check is None


def test_without_tensorrt_the_lint_decides_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    verdict = check_tensorrt(pair().SerializeToString())
    assert verdict.accepted
    assert "tensorrt-rtx is not installed" in verdict.describe()


@needs_rtx
def test_a_builder_that_crashes_or_takes_too_long_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineRefusedError("no engine within 300 s")

    monkeypatch.setattr(tensorrt, "build_engine", refuse)
    verdict = check_tensorrt(pair().SerializeToString())
    assert (verdict.accepted, verdict.reason) == (False, "no engine within 300 s")
    assert verdict.checker.startswith("tensorrt-rtx")
