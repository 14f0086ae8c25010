"""The quantized tensors inside a network: in a torch graph, and in the files made of it."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import fx

from edgedl.compress.graph.edit import is_constant
from edgedl.runtime.backend import Array
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.bundle.manifest import BackendName

# Integers minus their zero point: uint8 and int8 grids that differ by 128 give the same.
Centred = npt.NDArray[np.int32]

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


@dataclass(frozen=True)
class InnerTensor:
    """A tensor of integers and its grid.

    Attributes:
        name: in the graph or file.
        scale: a float32 value.
        zero_point: integer that stands for 0.0.
    """

    name: str
    scale: float
    zero_point: int

    def centre(self, integers: Array) -> Centred:
        """Return integers minus the zero point, int32."""
        return integers.astype(np.int32) - self.zero_point


def quantize_nodes(graph: fx.GraphModule) -> dict[fx.Node, InnerTensor]:
    """Return the quantize operators of an emitted graph, by the name of what they quantize.

    Stored tensors, tables of embeddings among them, are not computed and not among them.
    """
    return {
        node: InnerTensor(node.args[0].name, node.args[1], node.args[2])
        for node in graph.graph.nodes
        if node.target is _QUANTIZE and not is_constant(node.args[0])
    }


class GraphIntegers:
    """Runs an emitted torch graph and keeps the integers of every quantized tensor."""

    def __init__(self, graph: fx.GraphModule) -> None:
        """Find the quantize operators; nothing runs yet."""
        self._graph = graph
        self.tensors = quantize_nodes(graph)

    def read(self, inputs: tuple[Array, ...]) -> dict[str, Centred]:
        """Return centred integers by node name, in the order they are computed.

        Args:
            inputs: one array [N, ...] per input.
        """
        found: dict[str, Centred] = {}
        tensors = self.tensors

        class Recorder(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if n in tensors:
                    found[tensors[n].name] = tensors[n].centre(value.numpy())
                return value

        with torch.no_grad():
            Recorder(self._graph).run(*(torch.tensor(x) for x in inputs))
        return found


def file_tensors(model: bytes, backend: BackendName) -> list[InnerTensor]:
    """Return the activations that a file holds as integers, in the file's order.

    Those of an ONNX file are what its ``QuantizeLinear`` operators write.
    """
    return _tflite_tensors(model) if backend == "tflite" else _onnx_tensors(model)


def _onnx_tensors(model: bytes) -> list[InnerTensor]:
    graph = onnx.load_from_string(model).graph
    constants = {t.name: t for t in graph.initializer}

    def value(name: str) -> Any:
        return onnx.numpy_helper.to_array(constants[name]).item()

    return [
        InnerTensor(node.output[0], value(node.input[1]), value(node.input[2]))
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    ]


def _tflite_tensors(model: bytes) -> list[InnerTensor]:
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_content=model)
        details = interpreter.get_tensor_details()
        # The converter leaves tensors behind that no operator writes any more.
        written = {d["index"] for d in interpreter.get_input_details()}
        shuffled: set[int] = set()
        for operator in interpreter._get_ops_details():
            written.update(int(index) for index in operator["outputs"])
            if operator["op_name"] == "DEPTH_TO_SPACE":
                # Its channels have another order than the graph's; what it becomes is compared.
                shuffled.update(int(index) for index in operator["inputs"])
    uses = Counter(tensor["name"] for tensor in details)
    tensors = []
    for tensor in details:
        if tensor["index"] not in written - shuffled:
            continue
        scale, zero_point = tensor["quantization"]
        # Weights have a scale per channel, which this pair does not hold.
        if tensor["dtype"] is np.int8 and scale and uses[tensor["name"]] == 1:
            tensors.append(InnerTensor(tensor["name"], float(scale), int(zero_point)))
    return tensors
