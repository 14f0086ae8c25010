"""Check that an ONNX file is one that TensorRT takes and reads the way it was meant.

With ``tensorrt-rtx`` installed NVIDIA's own parser and builder decide; they need no GPU. Without
it, the rules below do, which are what that parser enforces (and one thing it does not).
"""

import importlib.util
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import onnx

from edgedl.compress.export.exporter import Verdict
from edgedl.runtime.child_process import answer, last_line

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
    return _build_in_child(model)


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


def _build_in_child(model: bytes) -> Verdict:
    """Let NVIDIA's builder work in a process of its own: a crash there is a verdict, not ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        command = [sys.executable, "-m", "edgedl.compress.export.tensorrt.rtx_parser", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return Verdict("tensorrt-rtx", False, f"no engine within {BUILD_TIMEOUT_S} s")
    if done.returncode < 0:
        return Verdict("tensorrt-rtx", False, f"its process ended with {done.returncode}")
    found = answer(done)
    if done.returncode > 0 or found is None:
        why = f"its process ended with {done.returncode}: {last_line(done.stderr)}"
        return Verdict("tensorrt-rtx", False, why)
    return Verdict(checker(), found["accepted"], found["reason"])
