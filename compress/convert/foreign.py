"""Read a quantized ONNX file that another tool made: a float network, its grids, its weights.

Only quantize/dequantize (QDQ) files can be read: they say the range of every tensor, and which
operator stands between.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgedl.compress.convert.foreign_floats import in_float32
from edgedl.compress.convert.foreign_integers import write_in_floats
from edgedl.compress.encodings.affine import SMALLEST_SCALE, Affine, affine_for, range_of
from edgedl.compress.modelfile.onnx_file import open_onnx
from edgedl.compress.modelfile.onnx_graphs import every_graph, names_read, rename_reads
from edgedl.compress.targets.target import Target
from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError

Numbers = npt.NDArray[np.float64]

MIN_OPSET = 13
MIDDLE, LAST = 128, 255
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_DYNAMIC = (
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "MatMulInteger",
    "ConvInteger",
)


@dataclass(frozen=True)
class Grid:
    """The integers of an activation.

    Attributes:
        scale: a float32 value.
        zero_point: the integer of an unsigned grid that stands for 0.0, 0 to 255.
    """

    scale: float
    zero_point: int

    def affine(self, target: Target) -> Affine:
        """Return the target's integers: the same, or for symmetric ones a range around it."""
        if target.symmetric and self.zero_point == MIDDLE:
            return Affine(self.scale, 0, -128, 127, "int8")
        return affine_for(range_of(self.scale, self.zero_point), target)


@dataclass(frozen=True)
class StoredWeight:
    """A weight's symmetric int8 integers, its float32 scales, one or one per channel of an axis."""

    integers: Array
    scales: Array
    axis: int


@dataclass(frozen=True)
class ForeignNetwork:
    """What a QDQ file holds.

    Attributes:
        model: the same operators without pairs; weights and biases are float32.
        grids: value name -> integers, for every activation that had a pair.
        weights: initializer name -> integers, for every constant that had a pair.
        unrounded: names of those grids' values that something reads without a pair, too.
        notes: what is not as it was, one line each.
    """

    model: onnx.ModelProto
    grids: dict[str, Grid]
    weights: dict[str, StoredWeight]
    unrounded: frozenset[str]
    notes: tuple[str, ...]


def read_foreign(content: bytes, source: str) -> ForeignNetwork:
    """Take a QDQ file apart.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        BadInputError: it is not one, or holds what cannot be carried over; the message says what
            to do.
    """
    model = open_onnx(content, source)
    _refuse(model, source)
    return _Reader(write_in_floats(in_float32(model)), source).read()


def _refuse(model: onnx.ModelProto, source: str) -> None:
    own, *inner = ([n.op_type for n in graph.node] for graph in every_graph(model.graph))
    kinds = [*own, *(kind for graph in inner for kind in graph)]
    dynamic = [kind for kind in kinds if kind in _DYNAMIC]
    if dynamic:
        raise BadInputError(
            f"{source} is quantized while it runs ({dynamic[0]}): it holds no ranges to carry "
            "over; quantize it statically, in QDQ format"
        )
    fused = [kind for kind in kinds if kind.startswith(("QLinear", "QGemm", "QAttention"))]
    if fused:
        raise BadInputError(
            f"{source} is in QOperator format ({fused[0]}): make it again in QDQ format, with "
            "onnxruntime.quantization that is quant_format=QuantFormat.QDQ"
        )
    if _QUANTIZE not in kinds and _DEQUANTIZE not in kinds:
        raise BadInputError(f"{source} is not quantized: 'edgedl compress' takes float networks")
    if any(kind in (_QUANTIZE, _DEQUANTIZE) for graph in inner for kind in graph):
        raise BadInputError(
            f"{source} is quantized inside a branch or a loop: only what stands outside can be "
            "carried over; quantize it without them"
        )
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < MIN_OPSET:
        raise BadInputError(
            f"{source} is of opset {opset}: scales per channel need {MIN_OPSET}, convert it with "
            "onnx.version_converter"
        )


class _Reader:
    """Removes the pairs of a model and keeps what they say."""

    def __init__(self, model: onnx.ModelProto, source: str) -> None:
        self._model, self._source = model, source
        self._graph = model.graph
        self._constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        self._producers = {name: n for n in model.graph.node for name in n.output}
        self._grids: dict[str, Grid] = {}
        self._weights: dict[str, StoredWeight] = {}
        self._floats: dict[str, Array] = {}
        self._rounded = 0
        self._regridded: set[str] = set()

    def read(self) -> ForeignNetwork:
        renamed: dict[str, str] = {}
        for node in self._graph.node:
            if node.op_type == _DEQUANTIZE:
                renamed[node.output[0]] = self._behind(node)
        kept = [n for n in self._graph.node if n.op_type not in (_QUANTIZE, _DEQUANTIZE)]
        read = {o.name for o in self._graph.output}.union(*(names_read(n) for n in kept))
        for node in kept:
            self._check_reads(node)
            rename_reads(node, {name: _follow(renamed, name) for name in renamed})
        names = {o.name for o in self._graph.output} & set(renamed)
        for name in sorted(names):
            kept.append(onnx.helper.make_node("Identity", [_follow(renamed, name)], [name]))
        self._rebuild(kept)
        unrounded = frozenset(read & set(self._grids))
        notes = tuple(self._notes())
        return ForeignNetwork(self._model, self._grids, self._weights, unrounded, notes)

    def _notes(self) -> list[str]:
        notes = []
        if self._rounded:
            weights = f"{self._rounded} weights were not symmetric int8"
            notes.append(f"{weights}: they are rounded anew")
        if self._regridded:
            values = ", ".join(sorted(self._regridded))
            notes.append(f"quantized more than once, only the first grid is kept: {values}")
        return notes

    def _behind(self, dequantize: onnx.NodeProto) -> str:
        """Return the value that a pair stands for, and keep its grid or its integers."""
        name = str(dequantize.input[0])
        if name in self._constants:
            return self._constant(name, self._constants[name], dequantize)
        quantize = self._producers.get(name)
        if quantize is None or quantize.op_type != _QUANTIZE:
            raise BadInputError(
                f"{self._source}: '{dequantize.name}' dequantizes integers that no QuantizeLinear "
                "makes"
            )
        value = str(quantize.input[0])
        if value in self._constants:
            stored = self._constants[value]
            integers = _quantize(stored, *self._parameters(quantize, stored))
            return self._constant(f"{value}_stored", integers, dequantize)
        scales, zeros, _ = self._parameters(quantize)
        if scales.size != 1:
            raise BadInputError(
                f"{self._source}: activation '{value}' has a scale per channel, which no runtime "
                "computes with"
            )
        zero = int(zeros.ravel()[0]) + (MIDDLE if zeros.dtype == np.int8 else 0)
        grid = Grid(max(float(scales.ravel()[0]), SMALLEST_SCALE), zero)
        before = self._producers.get(value)
        again = before is not None and before.op_type == _DEQUANTIZE
        if again or self._grids.setdefault(value, grid) != grid:
            self._regridded.add(value)
        return value

    def _constant(self, name: str, integers: Array, dequantize: onnx.NodeProto) -> str:
        """Keep a stored constant as floats and, where it is int8, as symmetric integers."""
        scales, zeros, axis = self._parameters(dequantize, integers)
        centred = integers.astype(np.float64) - _along(zeros, axis, integers.ndim)
        values = centred * _along(scales, axis, integers.ndim)
        self._floats[f"{name}_float"] = values.astype(np.float32)
        if integers.dtype == np.int8 and not zeros.any():
            stored = StoredWeight(integers, scales.astype(np.float32), axis)
            self._weights[f"{name}_float"] = stored
        elif integers.dtype in (np.int8, np.uint8):
            stored = _symmetric(values, scales, axis)
            self._weights[f"{name}_float"] = stored
            steps = _along(stored.scales, axis, values.ndim)
            # A single number is on every grid that ends there.
            self._rounded += not np.allclose(
                stored.integers.astype(np.float64) * steps, values, rtol=1e-6, atol=0.0
            )
        return f"{name}_float"

    def _parameters(
        self, node: onnx.NodeProto, constant: Array | None = None
    ) -> tuple[Array, Array, int]:
        """Return scales, zero points and axis of a quantize or dequantize, maybe of a constant."""
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if attributes.get("block_size"):
            raise BadInputError(
                f"{self._source}: '{node.name}' has a scale per block of "
                f"{attributes['block_size']} weights; one per channel or tensor can be carried over"
            )
        stored = [self._constants[name] for name in node.input[1:3] if name in self._constants]
        if len(stored) < len(node.input) - 1:
            raise BadInputError(
                f"{self._source}: the scale of '{node.name}' is computed, not stored"
            )
        default: np.dtype[Any] = np.dtype(np.uint8)
        if node.op_type == _DEQUANTIZE and constant is not None:
            default = constant.dtype
        elif node.op_type == _QUANTIZE and attributes.get("output_dtype"):
            default = onnx.helper.tensor_dtype_to_np_dtype(attributes["output_dtype"])
        zeros = stored[1] if len(stored) > 1 else np.zeros_like(stored[0], default)
        if zeros.dtype not in (np.int8, np.uint8, np.int32):
            raise BadInputError(
                f"{self._source}: '{node.name}' makes {zeros.dtype}, 8 bits can be carried over"
            )
        axis = int(attributes.get("axis", 1))
        if constant is not None:
            # A single number has no axis.
            axis = axis % constant.ndim if constant.ndim else 0
        return stored[0], zeros, axis

    def _check_reads(self, node: onnx.NodeProto) -> None:
        for name in names_read(node):
            producer: Any = self._producers.get(name)
            if producer is not None and producer.op_type == _QUANTIZE:
                raise BadInputError(
                    f"{self._source}: {node.op_type} ('{node.name}') reads integers directly"
                )

    def _rebuild(self, nodes: list[onnx.NodeProto]) -> None:
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in names_read(node)}
        tensors = {**self._constants, **self._floats}
        del self._graph.initializer[:]
        del self._graph.value_info[:]
        self._graph.initializer.extend(
            onnx.numpy_helper.from_array(x, name) for name, x in tensors.items() if name in used
        )


def _follow(renamed: dict[str, str], name: str) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _along(values: Array, axis: int, dimensions: int) -> Numbers:
    """Return one value, or one per place of an axis, in the shape that broadcasts; float64."""
    shape = [-1 if i == axis and values.size > 1 else 1 for i in range(dimensions)]
    return values.astype(np.float64).reshape(shape)


def _quantize(values: Array, scales: Array, zeros: Array, axis: int) -> Array:
    """Return the integers of a constant that the file holds as floats."""
    steps = _along(scales, axis, values.ndim).astype(np.float32)
    rounded = np.rint(values.astype(np.float32) / steps) + _along(zeros, axis, values.ndim)
    lowest, highest = (-128, 127) if zeros.dtype == np.int8 else (0, 255)
    integers: Array = np.clip(rounded, lowest, highest).astype(zeros.dtype)
    return integers


def _symmetric(values: Numbers, scales: Array, axis: int) -> StoredWeight:
    """Return int8 integers with zero point 0 for a weight on another grid."""
    other = tuple(i for i in range(values.ndim) if i != axis) if scales.size > 1 else None
    largest = np.maximum(np.abs(values).max(axis=other), SMALLEST_SCALE)
    steps = (largest / 127).astype(np.float32).reshape(scales.shape)
    integers = np.rint(values / _along(steps, axis, values.ndim)).astype(np.int8)
    return StoredWeight(integers, steps, axis)
