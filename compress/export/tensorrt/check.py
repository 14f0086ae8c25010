"""Check that an ONNX file is one that TensorRT takes and reads the way it was meant.

With ``tensorrt-rtx`` installed NVIDIA's own parser and builder decide; they need no GPU. Without
it, the rules below do, which are what that parser enforces (and one thing it does not).
"""

import importlib.util
from importlib.metadata import version

import onnx

from edgedl.compress.export.exporter import Verdict
from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.runtime.tensorrt.build import BuildSettings, EngineRefusedError
from edgedl.runtime.tensorrt.building import build_engine
from edgedl.runtime.tensorrt.profiles import profile

BUILD_TIMEOUT_S = 300
_REFUSED = {"QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}


def check_tensorrt(model: bytes) -> Verdict:
    """Return NVIDIA's verdict if its builder is installed, else the lint's.

    The lint always runs: the parser accepts uint8 tensors and silently reads them as int8, which
    clips the upper half of their range.
    """
    problems = lint(onnx.load_from_string(model))
    if problems:
        return Verdict("edgedl's TensorRT lint", False, problems[0])
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return Verdict(checker(), True, "")
    return _build(model)


def checker() -> str:
    """Return who says what TensorRT takes on this machine."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return "edgedl's TensorRT lint (tensorrt-rtx is not installed)"
    return f"tensorrt-rtx {version('tensorrt-rtx')} (parser and builder)"


def lint(model: onnx.ModelProto) -> list[str]:
    """Return what TensorRT would refuse or misread in a quantized model, one line each.

    Source: NVIDIA TensorRT documentation, "Working with quantized types"; texts of its parser.
    """
    constants = {t.name: t for t in model.graph.initializer}
    problems = []
    for node in model.graph.node:
        if node.op_type in _REFUSED:
            problems.append(f"operator {node.op_type} ('{node.name}') is not supported")
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            problems += _lint_pair(node, constants)
    return problems


def _lint_pair(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[str]:
    problems = []
    stored = constants.get(node.input[0])
    if stored is not None and stored.data_type == onnx.TensorProto.INT32:
        problems.append(f"'{node.name}' dequantizes an int32 bias")
    if len(node.input) < 3:
        if node.op_type == "QuantizeLinear":
            problems.append(f"'{node.name}' has no zero point, so its type is uint8")
        return problems
    zero_point = constants.get(node.input[2])
    if zero_point is None:
        return [*problems, f"the zero point of '{node.name}' is not a constant"]
    if zero_point.data_type == onnx.TensorProto.UINT8:
        problems.append(f"'{node.name}' is uint8, which TensorRT silently reads as int8")
    if onnx.numpy_helper.to_array(zero_point).any():
        problems.append(f"'{node.name}' has a zero point other than 0")
    return problems


def _build(model: bytes) -> Verdict:
    """Let NVIDIA's builder decide: a crash there is a verdict, not ours."""
    inputs, _ = describe_onnx(model)
    settings = BuildSettings("tensorrt_rtx", profile(inputs))
    try:
        build_engine(model, settings, timeout_s=BUILD_TIMEOUT_S)
    except EngineRefusedError as error:
        return Verdict(checker(), False, str(error))
    return Verdict(checker(), True, "")
