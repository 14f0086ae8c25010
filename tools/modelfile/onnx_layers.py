"""The layers of an ONNX file. Quantize/dequantize pairs are told as grids, not as operators."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.tools.modelfile.layer import FileLayer, Grid

if TYPE_CHECKING:
    import onnx

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
ACTIVATIONS = ("Relu", "Clip")
PRODUCTS = (
    "Gemm",
    "FusedGemm",
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
    except ImportError as error:
        raise BackendUnavailableError(
            "onnx is missing, it reads such files: pip install 'edgedl[compress]'"
        ) from error
    try:
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        # Protobuf, the checker and shape inference each raise classes of their own.
        first = str(error).strip().partition("\n")[0]
        raise BadInputError(f"{source} is not a whole ONNX model: {first}") from error
    return _OnnxReader(inferred.graph).layers()


class _OnnxReader:
    """A graph with what its nodes need to be described."""

    def __init__(self, graph: "onnx.GraphProto") -> None:
        self._nodes = list(graph.node)
        self._tensors = {t.name: t for t in graph.initializer}
        self._producer = {name: n for n in self._nodes for name in n.output}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        values = [*graph.value_info, *graph.input, *graph.output]
        self._shapes = {v.name: _shape(v.type.tensor_type) for v in values}
        self._dtypes = {v.name: v.type.tensor_type.elem_type for v in values}

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
        sources = [self._behind_pair(name) for name in node.input if name]
        constants = [name for name in sources if name in self._tensors]
        weight = next((n for n in sources[1:] if n in constants), None)
        return FileLayer(
            name=node.name or node.output[0],
            operator=f"{node.op_type}+{activation.op_type}" if activation else node.op_type,
            shape=self._shapes.get(node.output[0], ()),
            inputs=self._dtype(sources[0]) if sources else "",
            output=self._output_grid((activation or node).output[0]),
            weight=self._weight_grid(node, weight),
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

    def _output_grid(self, name: str) -> Grid | None:
        quantize = next((n for n in self._users.get(name, []) if n.op_type == QUANTIZE), None)
        return self._grid(quantize) if quantize is not None else None

    def _weight_grid(self, node: "onnx.NodeProto", weight: str | None) -> Grid | None:
        for name in node.input:
            producer = self._producer.get(name)
            if producer and producer.op_type == DEQUANTIZE and producer.input[0] == weight:
                return self._grid(producer)
        return None

    def _grid(self, pair: "onnx.NodeProto") -> Grid | None:
        """Return the grid of a quantize or dequantize whose scale is stored in the file."""
        if pair.input[1] not in self._tensors:
            return None
        scales = _array(self._tensors[pair.input[1]]).ravel()
        stored = len(pair.input) > 2 and pair.input[2] in self._tensors
        zeros = _array(self._tensors[pair.input[2]]).ravel() if stored else [0] * len(scales)
        source = pair.input[2] if stored else pair.input[0]
        dtype = self._dtype(source) if source in self._tensors else "uint8"
        return Grid(dtype, tuple(float(s) for s in scales), tuple(int(z) for z in zeros))

    def _macs(self, node: "onnx.NodeProto", weight: str | None) -> int:
        shape = self._shapes.get(node.output[0], ())
        outputs = math.prod(1 if d is None else d for d in shape)
        if weight is None:
            return outputs * self._inner(node) if node.op_type in PRODUCTS else 0
        sizes = tuple(int(d) for d in self._tensors[weight].dims)
        if node.op_type in CONVOLUTIONS:
            return outputs * math.prod(sizes[1:])
        if node.op_type == "ConvTranspose":
            read = self._shapes.get(node.input[0], ())
            return math.prod(1 if d is None else d for d in read) * math.prod(sizes[1:])
        if node.op_type in PRODUCTS:
            transposed = _attributes(node).get("transB", 0)
            return outputs * (sizes[-1] if transposed else sizes[-2])
        return 0

    def _inner(self, node: "onnx.NodeProto") -> int:
        """Return the length of the sums of a product of two activations."""
        shape = self._shapes.get(node.input[0], ())
        return (shape[-1] or 1) if shape else 0


def _attributes(node: "onnx.NodeProto") -> Mapping[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _shape(tensor: "onnx.TypeProto.Tensor") -> tuple[int | None, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)


def _array(tensor: "onnx.TensorProto") -> npt.NDArray[np.generic]:
    from onnx import numpy_helper

    array: npt.NDArray[np.generic] = numpy_helper.to_array(tensor)
    return array
