"""Compute a quantized ONNX file as int8 kernels do, without the processor that has them.

TensorRT cannot run where there is no GPU. Its int8 kernels multiply int8 by int8, add up in int32,
and scale the sum once, in float32, before the float bias: so does this, for every convolution and
linear layer between pairs. All else is float32, one operator at a time, in ONNX Runtime.

What it cannot know is how a kernel orders the float32 operations behind the sum, and the order of
sums in the layers that stay float.

Source: Wu et al., "Integer quantization for deep learning inference: principles and empirical
evaluation", 2020, section 3.3; NVIDIA TensorRT documentation, "Working with quantized types".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgedl.compress.errors import ExportError, first_line
from edgedl.runtime.backend import Array, Session

Values = dict[str, Array]
Floats = npt.NDArray[np.float32]

LAYERS = ("Conv", "Gemm", "MatMul")
# Integers below this are added exactly in float32, in any order.
EXACT_IN_FLOAT32 = 2**24
LARGEST_DATA = 128
INT32_MAX = 2**31 - 1
# A weight is one digit in the first base, two in the second, and so on: shorter sums per digit.
BASES = (256, 16, 4, 2)


class IntegerEmulator(Session):
    """An int8 ONNX file, computed as a GPU's int8 kernels do.

    It has the methods of a runtime's session.
    """

    def __init__(self, model: bytes, tensors: Sequence[str] = ()) -> None:
        """Read the file.

        Args:
            model: a quantized ONNX file.
            tensors: names of inner values that a run returns behind the outputs.
        """
        loaded = onnx.load_from_string(model)
        self._model = loaded
        self._constants = {t.name: onnx.numpy_helper.to_array(t) for t in loaded.graph.initializer}
        self._producers = {name: n for n in loaded.graph.node for name in n.output}
        self._inputs = [i.name for i in loaded.graph.input]
        self._outputs = [*(o.name for o in loaded.graph.output), *tensors]
        self._steps = [self._step(node) for node in loaded.graph.node]
        self._done = self._last_uses()
        self.integer_layers = sum(isinstance(s, _IntegerLayer) for s in self._steps)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference on float32 arrays [N, ...].

        Raises:
            ExportError: a sum does not fit int32.
        """
        values: Values = dict(zip(self._inputs, inputs, strict=True))
        for step, done in zip(self._steps, self._done, strict=True):
            step.run(values)
            for name in done:
                values.pop(name, None)
        return [values[name] for name in self._outputs]

    def close(self) -> None:
        """Drop the operators."""
        self._steps, self._done = [], []

    def _last_uses(self) -> list[set[str]]:
        """Return, for every step, the values that nothing reads behind it."""
        done: list[set[str]] = []
        needed = set(self._outputs)
        for step in reversed(self._steps):
            done.append(step.reads - needed)
            needed |= step.reads
        return done[::-1]

    def _step(self, node: onnx.NodeProto) -> "_Operator | _IntegerLayer":
        layer = self._integer_layer(node) if node.op_type in LAYERS else None
        return layer or _Operator(node, self._constants, self._model)

    def _integer_layer(self, node: onnx.NodeProto) -> "_IntegerLayer | None":
        """Return a layer whose data and weight both come out of a dequantize, else None."""
        data, weight = self._dequantize(node.input[0]), self._stored_weight(node.input[1])
        if data is None or weight is None:
            return None
        integers, scales, axis = weight
        if scales.size > 1 and axis != _output_axis(node, integers.ndim):
            return None
        bias = self._constants.get(node.input[2]) if len(node.input) > 2 else None
        computed = len(node.input) > 2 and bias is None
        if computed or any(a.name in ("alpha", "beta") and a.f != 1.0 for a in node.attribute):
            return None
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        del bare.input[:]
        bare.input.extend(["integers", "weight"])
        base, digits = _digits(integers, _output_axis(node, integers.ndim))
        return _IntegerLayer(
            data=data.input[0],
            output=node.output[0],
            steps=np.float32(self._constants[data.input[1]]) * scales.astype(np.float32),
            bias=None if bias is None else bias.astype(np.float32),
            channels=1 if node.op_type == "Conv" else -1,
            base=base,
            digits=tuple(_Operator(bare, {"weight": w}, self._model) for w in digits),
        )

    def _dequantize(self, name: str) -> onnx.NodeProto | None:
        """Return what dequantizes a value from symmetric int8 with a stored scale, if it does."""
        producer = self._producers.get(name)
        if producer is None or producer.op_type != "DequantizeLinear":
            return None
        zero = self._constants.get(producer.input[2]) if len(producer.input) > 2 else None
        symmetric = zero is not None and zero.dtype == np.int8 and not zero.any()
        return producer if symmetric and producer.input[1] in self._constants else None

    def _stored_weight(self, name: str) -> "tuple[Array, Array, int] | None":
        """Return int8 integers, float32 scales and their axis, through a transpose if there is."""
        producer = self._producers.get(name)
        if producer is not None and producer.op_type == "Transpose":
            found = self._stored_weight(producer.input[0])
            if found is None:
                return None
            integers, scales, axis = found
            order = [i for a in producer.attribute if a.name == "perm" for i in a.ints]
            order = order or list(range(integers.ndim))[::-1]
            return integers.transpose(order), scales, order.index(axis)
        producer = self._dequantize(name)
        if producer is None or producer.input[0] not in self._constants:
            return None
        integers, scales = (self._constants[n] for n in producer.input[:2])
        axis = next((a.i for a in producer.attribute if a.name == "axis"), 1)
        return integers, scales.ravel(), axis % integers.ndim


class _Operator:
    """One node of a file, run by ONNX Runtime on its own."""

    def __init__(self, node: onnx.NodeProto, constants: Values, model: onnx.ModelProto) -> None:
        self._node, self._opsets, self._ir_version = node, model.opset_import, model.ir_version
        self._constants = {n: constants[n] for n in node.input if n in constants}
        self.reads = {n for n in node.input if n and n not in constants}
        self._session: Any = None

    def run(self, values: Values) -> None:
        """Add the node's outputs to the values."""
        names = [n for n in dict.fromkeys(self._node.input) if n and n not in self._constants]
        given = {name: values[name] for name in names}
        if self._session is None:
            self._session = self._load(given)
        outputs = [name for name in self._node.output if name]
        values.update(zip(outputs, self._session.run(outputs, given), strict=True))

    def _load(self, given: Values) -> Any:
        import onnxruntime

        graph = onnx.helper.make_graph(
            [self._node],
            "operator",
            [
                onnx.helper.make_tensor_value_info(
                    name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), self._shape(name, x)
                )
                for name, x in given.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in self._node.output if name],
            [onnx.numpy_helper.from_array(x, name) for name, x in self._constants.items()],
        )
        model = onnx.helper.make_model(graph, opset_imports=self._opsets)
        model.ir_version = self._ir_version
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        try:
            return onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime raises a dozen unrelated classes here; each means it has no such operator.
            raise ExportError(
                f"the operator {self._node.op_type} ('{self._node.name}') cannot be computed on "
                f"its own: {first_line(error)}"
            ) from error

    def _shape(self, name: str, value: Array) -> list[int | None]:
        """Return the sizes to declare: free ones, but for how many numbers tell a new size."""
        tells_size = self._node.op_type == "Resize" and name != self._node.input[0]
        return list(value.shape) if tells_size else [None] * value.ndim


@dataclass(frozen=True)
class _IntegerLayer:
    """A convolution or linear layer on integers.

    Attributes:
        data: name of its integers. output: name of what it computes.
        steps: float32 value of one unit of the sum, one or one per channel.
        bias: float32 per channel, or None.
        channels: axis of the output's channels.
        base: of the digits that the weights are split into, so that float32 adds them exactly.
        digits: the layer without its bias, once for every digit, the highest first.
    """

    data: str
    output: str
    steps: Floats
    bias: Floats | None
    channels: int
    base: int
    digits: tuple[_Operator, ...]

    @property
    def reads(self) -> set[str]:
        """Return the names of the values it needs."""
        return {self.data}

    def run(self, values: Values) -> None:
        """Add the layer's output to the values, float32."""
        total = self._accumulate(values[self.data].astype(np.float32))
        if np.abs(total).max(initial=0) > INT32_MAX:
            raise ExportError(f"the sums behind '{self.output}' do not fit int32")
        shape = [1] * total.ndim
        shape[self.channels] = -1
        y = total.astype(np.float32) * self.steps.reshape(shape)
        values[self.output] = y if self.bias is None else y + self.bias.reshape(shape)

    def _accumulate(self, integers: Floats) -> npt.NDArray[np.int64]:
        """Return the exact sums of products."""
        total: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        for operator in self.digits:
            values: Values = {"integers": integers}
            operator.run(values)
            total = total * self.base + np.rint(values[self.output]).astype(np.int64)
        return total


def _digits(weight: Array, axis: int) -> tuple[int, list[Floats]]:
    """Return the digits of int8 weights in the largest base whose sums are exact in float32.

    Raises:
        ExportError: the sums are too long for int32 in any case.
    """
    other = tuple(i for i in range(weight.ndim) if i != axis)
    for base in BASES:
        digits, rest = [], weight.astype(np.int64)
        for _ in range(round(8 / np.log2(base)) - 1):
            rest, low = np.divmod(rest, base)
            digits.append(low)
        digits.append(rest)
        reach = max(int(np.abs(d).sum(axis=other).max()) for d in digits)
        if LARGEST_DATA * reach < EXACT_IN_FLOAT32:
            return base, [d.astype(np.float32) for d in reversed(digits)]
    raise ExportError(f"sums of {weight[0].size} products do not fit int32")


def _output_axis(node: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of a weight that is the output's channels."""
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else dimensions - 1
