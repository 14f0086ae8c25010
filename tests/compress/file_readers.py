"""Run and look into model files with nothing but their runtimes."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Grid = tuple[float, int]


def onnx_session(
    model: bytes, optimize: bool = True, optimized: Path | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(model: bytes, inputs: tuple[np.ndarray, ...], optimize: bool = True) -> list:
    session = onnx_session(model, optimize)
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def optimized_operators(model: bytes) -> Counter[str]:
    """Count the operators that ONNX Runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        onnx_session(model, optimized=path)
        return Counter(n.op_type for n in onnx.load(str(path)).graph.node)


def onnx_operators(model: bytes) -> Counter[str]:
    return Counter(n.op_type for n in onnx.load_from_string(model).graph.node)


def onnx_grids(model: bytes) -> tuple[set[Grid], list[np.ndarray]]:
    """Return (scale, zero point) of every activation, and the scales of every weight."""
    graph = onnx.load_from_string(model).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    grids, weights = set(), []
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero_point = constants[node.input[1]], constants[node.input[2]]
        if node.input[0] in constants:
            weights.append(scale)
        else:
            grids.add((float(scale), int(zero_point)))
    return grids, weights


class TFLiteFile:
    """A TFLite file in the interpreter: with XNNPACK as devices run it, or as the file is."""

    def __init__(self, model: bytes, xnnpack: bool = True) -> None:
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter = Interpreter(
            model_content=model,
            experimental_op_resolver_type=OpResolverType.AUTO if xnnpack else plain,
        )
        self._interpreter.allocate_tensors()
        self.inputs = _in_order(self._interpreter.get_input_details())
        self.outputs = _in_order(self._interpreter.get_output_details())
        self.tensors = self._interpreter.get_tensor_details()

    @property
    def operators(self) -> Counter[str]:
        return Counter(d["op_name"] for d in self._interpreter._get_ops_details())

    def run(self, inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """Run float32 inputs [N, ...] one by one and return real values [N, ...]."""
        rows = []
        for index in range(len(inputs[0])):
            for details, x in zip(self.inputs, inputs, strict=True):
                self._interpreter.set_tensor(
                    details["index"], _encode(x[index : index + 1], details)
                )
            self._interpreter.invoke()
            rows.append(
                [_decode(self._interpreter.get_tensor(d["index"]), d) for d in self.outputs]
            )
        return [np.concatenate(column) for column in zip(*rows, strict=True)]


def _in_order(details: list[dict]) -> list[dict]:
    return sorted(details, key=lambda d: d["name"])


def _encode(x: np.ndarray, details: dict) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if scale == 0:
        return x
    return np.clip(np.rint(x / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)


def _decode(y: np.ndarray, details: dict) -> np.ndarray:
    scale, zero_point = details["quantization"]
    return y if scale == 0 else (y.astype(np.float32) - zero_point) * np.float32(scale)
