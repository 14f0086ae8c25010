"""Put integer weights into a float32 TFLite file, each behind a ``DEQUANTIZE``.

That is what the runtime computes exactly: with integer weights inside ``FULLY_CONNECTED`` (per
channel or blockwise) it rounds the activations to int8 too, and without XNNPACK reads blockwise
ones as if they had one scale.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedl.compress.encodings.grouped import GroupedWeight
from edgedl.compress.export.tflite.pack import pack_tflite
from edgedl.compress.export.tflite.write import missing
from edgedl.compress.export.weight_table import WeightTable, pack_int4
from edgedl.runtime.errors import BackendUnavailableError

Floats = npt.NDArray[np.float32]
# Versions of DEQUANTIZE that read integers per channel, by their width.
DEQUANTIZE_VERSION = {8: 5, 4: 6}


def weights_for_tflite(model: bytes, weights: Mapping[str, GroupedWeight]) -> bytes:
    """Return a float32 model that holds weights as integers.

    A channel's scale is the quantization parameter of its integers. Those of groups are a constant
    that multiplies them: a parameter per group would take a zero point of 8 bytes as well.

    Raises:
        BackendUnavailableError: ai-edge-litert is not installed.
        ExportError: a weight is not in the model as it is in the table.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise BackendUnavailableError.of(error, missing()) from error
    return _Rewriter(model, weights, schema).rewrite()


class _Rewriter:
    """One model on its way from float weights to integers."""

    def __init__(self, model: bytes, weights: Mapping[str, GroupedWeight], schema: Any) -> None:
        self._schema = schema
        self._model = schema.ModelT.InitFromPackedBuf(model, 0)
        self._graph = self._model.subgraphs[0]
        self._table = WeightTable(weights)
        codes = schema.BuiltinOperator
        # Operators with a weight -> which of their inputs, and the order of its axes in torch.
        self._weighted: dict[int, tuple[int, tuple[int, ...]]] = {
            codes.FULLY_CONNECTED: (1, (0, 1)),
            codes.CONV_2D: (1, (0, 3, 1, 2)),
            codes.DEPTHWISE_CONV_2D: (1, (3, 0, 1, 2)),
            codes.EMBEDDING_LOOKUP: (1, (0, 1)),
            codes.GATHER: (0, (0, 1)),
        }
        self._before: list[Any] = []

    def rewrite(self) -> bytes:
        for operator in self._graph.operators:
            code = self._model.operatorCodes[operator.opcodeIndex]
            kind = max(code.builtinCode, code.deprecatedBuiltinCode)
            if kind in self._weighted:
                position, axes = self._weighted[kind]
                self._replace(int(operator.inputs[position]), axes)
        self._table.check_complete()
        self._graph.operators = [*self._before, *self._graph.operators]
        self._empty_unused_buffers()
        return pack_tflite(self._model)

    def _replace(self, index: int, axes: tuple[int, ...]) -> None:
        """Let a weight be computed from integers, if it is one of the table."""
        tensor = self._graph.tensors[index]
        values = self._values(tensor)
        if values is None or values.ndim != len(axes):
            return
        found = self._table.find_folded(values.transpose(axes))
        if found is None:
            return
        path, weight = found.path, found.weight
        tensor.buffer = 0
        result = index
        if found.columns is not None:
            result = self._tensor(f"{path}_unscaled", values.shape, tensor.type)
        if weight.per_channel:
            self._dequantize_channels(path, weight, values.shape, axes, result)
        else:
            self._dequantize_groups(path, weight, values.shape, result)
        if found.columns is not None:
            content = found.columns.tobytes()
            columns = self._tensor(f"{path}_columns", found.columns.shape, tensor.type, content)
            self._multiply(result, columns, index)

    def _dequantize_channels(
        self,
        path: str,
        weight: GroupedWeight,
        shape: tuple[int, ...],
        axes: tuple[int, ...],
        result: int,
    ) -> None:
        in_torch = weight.integers.numpy().reshape([shape[axis] for axis in axes])
        integers = in_torch.transpose(np.argsort(axes).tolist())
        source = self._integers(path, integers, weight.bits, weight.scales.numpy().ravel(), axes[0])
        self._operator("DEQUANTIZE", DEQUANTIZE_VERSION[weight.bits], [source], result)

    def _dequantize_groups(
        self, path: str, weight: GroupedWeight, shape: tuple[int, ...], result: int
    ) -> None:
        scales = weight.scales.numpy()[:, :, None]
        integers = weight.integers.numpy().reshape(*scales.shape[:2], -1)
        one = np.ones(1, np.float32)
        source = self._integers(path, integers, weight.bits, one, 0)
        kind = self._schema.TensorType.FLOAT32
        wide = self._tensor(f"{path}_float", integers.shape, kind)
        scaled = self._tensor(f"{path}_scaled", integers.shape, kind)
        factors = self._tensor(f"{path}_scales", scales.shape, kind, scales.tobytes())
        content = np.array(shape, np.int32).tobytes()
        sizes = self._tensor(f"{path}_shape", (len(shape),), self._schema.TensorType.INT32, content)
        self._operator("DEQUANTIZE", DEQUANTIZE_VERSION[weight.bits], [source], wide)
        self._multiply(wide, factors, scaled)
        self._operator("RESHAPE", 1, [scaled, sizes], result)

    def _values(self, tensor: Any) -> Floats | None:
        """Return a float32 constant of two or more dimensions, None for other tensors."""
        data = self._model.buffers[tensor.buffer].data
        float32 = tensor.type == self._schema.TensorType.FLOAT32
        if data is None or not float32 or len(tensor.shape) < 2:
            return None
        return np.frombuffer(bytes(data), np.float32).reshape([int(d) for d in tensor.shape])

    def _integers(
        self,
        path: str,
        integers: npt.NDArray[np.int8],
        bits: int,
        scales: npt.NDArray[np.float32],
        axis: int,
    ) -> int:
        """Add a tensor of integers, with a scale for all or one for each place along an axis."""
        types = self._schema.TensorType
        content = integers.tobytes() if bits == 8 else pack_int4(np.ascontiguousarray(integers))
        kind = types.INT8 if bits == 8 else types.INT4
        index = self._tensor(f"{path}_int{bits}", integers.shape, kind, content)
        grid = self._schema.QuantizationParametersT()
        grid.scale, grid.zeroPoint = scales, np.zeros(len(scales), np.int64)
        grid.quantizedDimension = axis
        self._graph.tensors[index].quantization = grid
        return index

    def _multiply(self, a: int, b: int, result: int) -> None:
        options = self._schema.BuiltinOptions.MulOptions
        self._operator("MUL", 1, [a, b], result, options, self._schema.MulOptionsT())

    def _operator(
        self,
        name: str,
        version: int,
        inputs: list[int],
        result: int,
        options_type: int = 0,
        options: Any = None,
    ) -> None:
        operator = self._schema.OperatorT()
        code = getattr(self._schema.BuiltinOperator, name)
        operator.opcodeIndex = self._code(code, version)
        operator.inputs, operator.outputs = inputs, [result]
        operator.builtinOptionsType, operator.builtinOptions = options_type, options
        self._before.append(operator)

    def _code(self, code: int, version: int) -> int:
        """Return the index of an operator in the model's list, which it joins if it must."""
        codes = self._model.operatorCodes
        for index, known in enumerate(codes):
            if max(known.builtinCode, known.deprecatedBuiltinCode) == code:
                known.version = max(known.version, version)
                return index
        added = self._schema.OperatorCodeT()
        added.builtinCode = added.deprecatedBuiltinCode = code
        added.version = version
        codes.append(added)
        return len(codes) - 1

    def _tensor(
        self, name: str, shape: tuple[int, ...], kind: int, content: bytes | None = None
    ) -> int:
        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), kind
        tensor.hasRank = True
        # Buffer 0 is the one without content.
        tensor.buffer = 0
        if content is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(content, np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _empty_unused_buffers(self) -> None:
        used = {t.buffer for graph in self._model.subgraphs for t in graph.tensors}
        used |= {entry.buffer for entry in self._model.metadata or []}
        for index, buffer in enumerate(self._model.buffers):
            if index not in used:
                buffer.data = None
