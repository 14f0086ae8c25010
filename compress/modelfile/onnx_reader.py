"""Describe the operators of an ONNX graph, and of the graphs inside it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgedl.compress.modelfile.integer_operators import INTEGER_OPERATORS
from edgedl.compress.modelfile.layer import FileLayer, Grid, work_of
from edgedl.compress.modelfile.onnx_constants import stored_bytes
from edgedl.compress.modelfile.onnx_graphs import graphs_inside, names_read
from edgedl.compress.modelfile.onnx_loops import times_run
from edgedl.compress.modelfile.onnx_macs import PRODUCTS, Products
from edgedl.compress.modelfile.onnx_shapes import Shape, shape_of

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
ACTIVATIONS = ("Relu", "Clip")


class OnnxReader:
    """A graph with what its nodes need to be described.

    Its shapes as they are, and as they are for a batch of one: where rows are folded into the
    batch, only the latter say how many there are.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        shapes: onnx.GraphProto,
        sizes: onnx.GraphProto,
        outer: "OnnxReader | None" = None,
    ) -> None:
        """Take a graph, the same with inferred shapes, and with those of one sample.

        ``outer`` describes the graph that it stands in, whose values it may read.
        """
        self._nodes, self._inferred = list(graph.node), (shapes, sizes)
        self._outputs = [value.name for value in graph.output]
        self._tensors: dict[str, onnx.TensorProto] = dict(outer._tensors) if outer else {}
        self._producer: dict[str, onnx.NodeProto] = dict(outer._producer) if outer else {}
        self._shapes: dict[str, Shape | None] = dict(outer._shapes) if outer else {}
        self._sizes: dict[str, Shape | None] = dict(outer._sizes) if outer else {}
        self._dtypes: dict[str, int] = dict(outer._dtypes) if outer else {}
        self._tensors.update((t.name, t) for t in graph.initializer)
        self._producer.update((name, n) for n in self._nodes for name in n.output)
        self._shapes.update(_shapes(shapes))
        self._sizes.update(_shapes(sizes))
        self._sizes.update((t.name, tuple(t.dims)) for t in graph.initializer)
        self._dtypes.update(_dtypes(shapes))
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self._nodes:
            for name in names_read(node):
                self._users.setdefault(name, []).append(node)

    def layers(self) -> list[FileLayer]:
        """Return the operators in their order, each with those inside it behind it."""
        hidden = (QUANTIZE, DEQUANTIZE, "Constant")
        followed = {
            id(n): self._activation_behind(n) for n in self._nodes if n.op_type not in hidden
        }
        folded = [id(a) for a in followed.values() if a is not None]
        found = []
        for index, node in enumerate(self._nodes):
            if id(node) in followed and id(node) not in folded:
                found += self._described(node, followed[id(node)], index)
        return found

    def _described(
        self, node: onnx.NodeProto, activation: onnx.NodeProto | None, index: int
    ) -> list[FileLayer]:
        """Return an operator, and behind it the layers of the graphs that it runs."""
        layer, inner = self._layer(node, activation), []
        works = []
        nodes = [node, *(graph.node[index] for graph in self._inferred)]
        for forms in zip(*map(graphs_inside, nodes), strict=True):
            (name, graph), (_, shapes), (_, sizes) = forms
            layers = OnnxReader(graph, shapes, sizes, self).layers()
            times = times_run(node, graph, self._constant, self._shapes.get)
            works.append(work_of(layers).repeated(times))
            inside = f"{layer.name}/{name}"
            inner += [
                replace(x, name=f"{inside}/{x.name}", inside=f"{inside}/{x.inside}".rstrip("/"))
                for x in layers
            ]
        if works:
            # Which of several branches is run is known when it runs.
            layer = replace(layer, macs=works[0] if len(set(works)) == 1 else None)
        return [layer, *inner]

    def _activation_behind(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the activation that every runtime folds into an operator, if it has one."""
        if node.op_type in ACTIVATIONS or not node.output or node.output[0] in self._outputs:
            return None
        users = self._users.get(node.output[0], [])
        return users[0] if len(users) == 1 and users[0].op_type in ACTIVATIONS else None

    def _layer(self, node: onnx.NodeProto, activation: onnx.NodeProto | None) -> FileLayer:
        roles = INTEGER_OPERATORS.get(node.op_type)
        names = roles.values(node) if roles else [name for name in node.input if name]
        sources = [self._behind_pair(name) for name in names]
        constants = [name for name in sources if name in self._tensors]
        # An operator that multiplies has its weight in one place; what else is stored is a bias.
        places = sources[1:2] if node.op_type in PRODUCTS else sources[1:]
        weight = next((n for n in places if n in constants), None)
        grid = self._weight_grid(node, weight)
        # Integers that are dequantized for an operator with float weights are floats to it.
        read = names if weight is not None and grid is None else sources
        output = node.output[0] if node.output else ""
        return FileLayer(
            name=node.name or output,
            operator=f"{node.op_type}+{activation.op_type}" if activation else node.op_type,
            shape=self._shapes.get(output) or (),
            inputs=self._dtype(read[0]) if read else "",
            output=self._output_grid(activation or node),
            weight=grid,
            weight_bytes=sum(stored_bytes(self._tensors[n]) for n in constants),
            macs=Products(node, names, self._sizes.get, self._shapes.get).macs(),
        )

    def _behind_pair(self, name: str) -> str:
        """Return the integers behind a dequantize, or the name itself."""
        producer = self._producer.get(name)
        return producer.input[0] if producer and producer.op_type == DEQUANTIZE else name

    def _dtype(self, name: str) -> str:
        number = self._tensors[name].data_type if name in self._tensors else self._dtypes.get(name)
        return str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else "?"

    def _output_grid(self, node: onnx.NodeProto) -> Grid | None:
        roles = INTEGER_OPERATORS.get(node.op_type)
        if roles is not None:
            return self._grid(node.input, roles.output)
        users = self._users.get(node.output[0], []) if node.output else []
        quantize = next((n for n in users if n.op_type == QUANTIZE), None)
        return self._grid(quantize.input, 1) if quantize is not None else None

    def _weight_grid(self, node: onnx.NodeProto, weight: str | None) -> Grid | None:
        roles = INTEGER_OPERATORS.get(node.op_type)
        if weight is None or (roles is not None and roles.weight is None):
            return None
        if roles is not None and roles.weight is not None:
            return self._grid(node.input, roles.weight)
        if node.op_type == "MatMulInteger" and weight == node.input[1]:
            return self._grid([weight, self._factor_behind(node), *node.input[3:4]], 1)
        if node.op_type == "DynamicQuantizeMatMul" and weight == node.input[1]:
            return self._grid(node.input[1:4], 1)
        if node.op_type == "MatMulNBits":
            return self._blocks_of(node)
        for name in node.input:
            producer = self._producer.get(name)
            if producer and producer.op_type == DEQUANTIZE and producer.input[0] == weight:
                return self._grid(producer.input, 1, _number(producer, "block_size") or None)
        return None

    def _factor_behind(self, node: onnx.NodeProto) -> str:
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

    def _grid(self, names: Sequence[str], scale: int, block_size: int | None = None) -> Grid | None:
        """Return the grid whose scale and zero point stand there, if they are in the file."""
        if scale >= len(names) or names[scale] not in self._tensors:
            return None
        scales = _array(self._tensors[names[scale]]).ravel()
        stored = len(names) > scale + 1 and names[scale + 1] in self._tensors
        zeros = _array(self._tensors[names[scale + 1]]).ravel() if stored else [0] * len(scales)
        source = names[scale + 1] if stored else names[scale - 1]
        dtype = self._dtype(source) if source in self._tensors else "uint8"
        each = np.broadcast_to(zeros, scales.shape)
        return Grid(dtype, tuple(map(float, scales)), tuple(map(int, each)), block_size)

    def _blocks_of(self, node: onnx.NodeProto) -> Grid | None:
        """Return the grid of a product whose weight is packed in blocks [N, K / block, bytes].

        Source: "com.microsoft.MatMulNBits" among ONNX Runtime's contrib operators.
        """
        bits, block = _number(node, "bits") or 4, _number(node, "block_size")
        scales = self._constant(node.input[2])
        if scales is None or not block:
            return None
        blocks = -(-_number(node, "K") // block)
        zeros = np.full(scales.size, 1 << (bits - 1))
        stored = self._constant(node.input[3]) if node.input[3:4] and node.input[3] else None
        if stored is not None and stored.dtype == np.uint8:
            rows = stored.astype(np.uint8).reshape(scales.size // blocks, -1)
            shifts = np.arange(0, 8, bits, dtype=np.uint8)
            parts = (rows[..., None] >> shifts) & np.uint8((1 << bits) - 1)
            zeros = parts.reshape(len(rows), -1)[:, :blocks].ravel().astype(np.int64)
        return Grid(f"uint{bits}", tuple(map(float, scales.ravel())), tuple(map(int, zeros)), block)

    def _constant(self, name: str) -> npt.NDArray[np.generic] | None:
        return _array(self._tensors[name]) if name in self._tensors else None


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape | None]:
    return {v.name: shape_of(v) for v in (*graph.value_info, *graph.input, *graph.output)}


def _dtypes(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.value_info, *graph.input, *graph.output)
    return {v.name: v.type.tensor_type.elem_type for v in values}


def _number(node: onnx.NodeProto, name: str) -> int:
    """Return a whole number among the attributes; 0 where it is not there."""
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def _array(tensor: onnx.TensorProto) -> npt.NDArray[np.generic]:
    array: npt.NDArray[np.generic] = numpy_helper.to_array(tensor)
    return array
