"""The layers of an ONNX file. Quantize/dequantize pairs are told as grids, not as operators."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgedl.compress.modelfile.integer_operators import INTEGER_OPERATORS, as_float
from edgedl.compress.modelfile.layer import FileLayer, Grid
from edgedl.runtime.errors import BackendUnavailableError, BadInputError

if TYPE_CHECKING:
    import onnx

    Values = dict[str, onnx.TypeProto.Tensor]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
ACTIVATIONS = ("Relu", "Clip")
PRODUCTS = (
    "Gemm",
    "FusedGemm",
    "QGemm",
    "MatMul",
    "MatMulInteger",
    "QLinearMatMul",
    "DynamicQuantizeMatMul",
)


def read_onnx_layers(content: bytes, source: str) -> list[FileLayer]:
    """Return the layers of a model.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        BackendUnavailableError: the package onnx is not installed.
        BadInputError: the file is not a whole ONNX model.
    """
    try:
        import onnx

        from edgedl.compress.modelfile.onnx_constants import store_constants
    except ImportError as error:
        raise BackendUnavailableError(
            "onnx is missing, it reads such files: pip install 'edgedl[compress]'"
        ) from error
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        model = store_constants(model)
        shadow = as_float(model)
        shapes = _infer_shapes(shadow)
        for value in shadow.graph.input:
            for axis in value.type.tensor_type.shape.dim:
                if not axis.HasField("dim_value"):
                    axis.dim_value = 1
        sizes = _infer_shapes(shadow)
    except Exception as error:
        # Protobuf, the checker and shape inference each raise classes of their own.
        first = str(error).strip().partition("\n")[0]
        raise BadInputError(f"{source} is not a whole ONNX model: {first}") from error
    return _OnnxReader(model.graph, shapes, sizes).layers()


class _OnnxReader:
    """A graph with what its nodes need to be described.

    Its shapes as they are, and as they are for a batch of one: where rows are folded into the
    batch, only the latter say how many there are.
    """

    def __init__(self, graph: "onnx.GraphProto", shapes: "Values", sizes: "Values") -> None:
        self._nodes = list(graph.node)
        self._tensors = {t.name: t for t in graph.initializer}
        self._producer = {name: n for n in self._nodes for name in n.output}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._shapes = {name: _shape(v) for name, v in shapes.items()}
        self._sizes = {name: _shape(v) for name, v in sizes.items()}
        self._dtypes = {name: v.elem_type for name, v in shapes.items()}

    def layers(self) -> list[FileLayer]:
        hidden = (QUANTIZE, DEQUANTIZE, "Constant")
        shown = [n for n in self._nodes if n.op_type not in hidden]
        followed = {n.output[0]: self._activation_behind(n) for n in shown}
        folded = {a.output[0] for a in followed.values() if a is not None}
        return [self._layer(n, followed[n.output[0]]) for n in shown if n.output[0] not in folded]

    def _activation_behind(self, node: "onnx.NodeProto") -> "onnx.NodeProto | None":
        """Return the activation that every runtime folds into an operator, if it has one."""
        users = self._users.get(node.output[0], [])
        folds = node.op_type not in ACTIVATIONS and len(users) == 1
        return users[0] if folds and users[0].op_type in ACTIVATIONS else None

    def _layer(self, node: "onnx.NodeProto", activation: "onnx.NodeProto | None") -> FileLayer:
        roles = INTEGER_OPERATORS.get(node.op_type)
        names = roles.values(node) if roles else [name for name in node.input if name]
        sources = [self._behind_pair(name) for name in names]
        constants = [name for name in sources if name in self._tensors]
        weight = next((n for n in sources[1:] if n in constants), None)
        grid = self._weight_grid(node, weight)
        # Integers that are dequantized for an operator with float weights are floats to it.
        read = names if weight is not None and grid is None else sources
        return FileLayer(
            name=node.name or node.output[0],
            operator=f"{node.op_type}+{activation.op_type}" if activation else node.op_type,
            shape=self._shapes.get(node.output[0], ()),
            inputs=self._dtype(read[0]) if read else "",
            output=self._output_grid(activation or node),
            weight=grid,
            weight_bytes=sum(int(_array(self._tensors[n]).nbytes) for n in constants),
            macs=self._macs(node, weight),
        )

    def _behind_pair(self, name: str) -> str:
        """Return the integers behind a dequantize, or the name itself."""
        producer = self._producer.get(name)
        return producer.input[0] if producer and producer.op_type == DEQUANTIZE else name

    def _dtype(self, name: str) -> str:
        from onnx import helper

        number = self._tensors[name].data_type if name in self._tensors else self._dtypes.get(name)
        return str(helper.tensor_dtype_to_np_dtype(number)) if number else "?"

    def _output_grid(self, node: "onnx.NodeProto") -> Grid | None:
        roles = INTEGER_OPERATORS.get(node.op_type)
        if roles is not None:
            return self._grid(node.input, roles.output)
        users = self._users.get(node.output[0], [])
        quantize = next((n for n in users if n.op_type == QUANTIZE), None)
        return self._grid(quantize.input, 1) if quantize is not None else None

    def _weight_grid(self, node: "onnx.NodeProto", weight: str | None) -> Grid | None:
        roles = INTEGER_OPERATORS.get(node.op_type)
        if roles is not None:
            known = weight is not None and roles.weight is not None
            return self._grid(node.input, roles.weight or 0) if known else None
        if node.op_type == "MatMulInteger" and weight is not None and weight == node.input[1]:
            return self._grid([weight, self._factor_behind(node), *node.input[3:4]], 1)
        for name in node.input:
            producer = self._producer.get(name)
            if producer and producer.op_type == DEQUANTIZE and producer.input[0] == weight:
                return self._grid(producer.input, 1)
        return None

    def _factor_behind(self, node: "onnx.NodeProto") -> str:
        """Return the stored factor of an integer product: the scale of its weight.

        Behind the product there is a conversion to float, times the scale of the values times it.
        """
        reached = node.output[0]
        for kind in ("Cast", "Mul"):
            behind = next((n for n in self._users.get(reached, []) if n.op_type == kind), None)
            if behind is None:
                return ""
            factors, reached = [n for n in behind.input if n != reached], behind.output[0]
        product = self._producer.get(factors[0])
        named = [*factors, *(product.input if product and product.op_type == "Mul" else ())]
        return next((name for name in named if name in self._tensors), "")

    def _grid(self, names: "Sequence[str]", scale: int) -> Grid | None:
        """Return the grid whose scale and zero point stand there, if they are in the file."""
        if scale >= len(names) or names[scale] not in self._tensors:
            return None
        scales = _array(self._tensors[names[scale]]).ravel()
        stored = len(names) > scale + 1 and names[scale + 1] in self._tensors
        zeros = _array(self._tensors[names[scale + 1]]).ravel() if stored else [0] * len(scales)
        source = names[scale + 1] if stored else names[scale - 1]
        dtype = self._dtype(source) if source in self._tensors else "uint8"
        each = np.broadcast_to(zeros, scales.shape)
        return Grid(dtype, tuple(float(s) for s in scales), tuple(int(z) for z in each))

    def _macs(self, node: "onnx.NodeProto", weight: str | None) -> int:
        outputs = self._size(node.output[0])
        if weight is None:
            return outputs * self._inner(node) if node.op_type in PRODUCTS else 0
        sizes = tuple(int(d) for d in self._tensors[weight].dims)
        if node.op_type in CONVOLUTIONS:
            return outputs * math.prod(sizes[1:])
        if node.op_type == "ConvTranspose":
            return self._size(node.input[0]) * math.prod(sizes[1:])
        if node.op_type in PRODUCTS:
            transposed = _attributes(node).get("transB", 0) or len(sizes) == 1
            return outputs * (sizes[-1] if transposed else sizes[-2])
        return 0

    def _size(self, name: str) -> int:
        """Return the elements of a value for a batch of one."""
        return math.prod(1 if d is None else d for d in self._sizes.get(name, ()))

    def _inner(self, node: "onnx.NodeProto") -> int:
        """Return the length of the sums of a product of two activations."""
        shape = self._sizes.get(node.input[0], ())
        return (shape[-1] or 1) if shape else 0


def _infer_shapes(model: "onnx.ModelProto") -> "Values":
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.tensor_type for v in values}


def _attributes(node: "onnx.NodeProto") -> Mapping[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _shape(tensor: "onnx.TypeProto.Tensor") -> tuple[int | None, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)


def _array(tensor: "onnx.TensorProto") -> npt.NDArray[np.generic]:
    from onnx import numpy_helper

    array: npt.NDArray[np.generic] = numpy_helper.to_array(tensor)
    return array
