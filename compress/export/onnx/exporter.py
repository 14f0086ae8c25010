"""What the exporters of runtimes that read ONNX have in common."""

from typing import Any

import onnx
from torch import fx

from edgedl.compress.digests import tensors_digest
from edgedl.compress.errors import ExportError
from edgedl.compress.export.exporter import Exporter, FileSource, InnerTensor
from edgedl.compress.export.float_types import to_bfloat16, to_float16
from edgedl.compress.export.onnx.write import (
    BFLOAT16_OPSET,
    HALF_OPSET,
    OPSET,
    describe_onnx,
    to_onnx,
)
from edgedl.compress.graph.passes.fold.input_norm import write_input_norms
from edgedl.compress.graph.passes.transposed.join import join_transposed_convolutions
from edgedl.compress.targets.target import Target
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.precision import BFLOAT16, FLOAT16, FLOAT32, Precision

OPSETS = {FLOAT16: HALF_OPSET, BFLOAT16: BFLOAT16_OPSET}


class OnnxExporter(Exporter):
    """Writes ONNX files; float files are the same for every runtime."""

    def float_graph(self, source: FileSource, precision: Precision) -> fx.GraphModule:
        """Return a graph with transposed convolutions in one operator, where kernels take it."""
        if precision is BFLOAT16:
            # TensorRT's builder takes no transposed convolution of bfloat16.
            return source.once("bfloat16", lambda: to_bfloat16(source.state.graph))
        joined = source.once(
            "joined", lambda: write_input_norms(join_transposed_convolutions(source.state.graph))
        )
        if precision is FLOAT16:
            return source.once("float16", lambda: to_float16(joined))
        return joined

    def path(self, target: Target, precision: Precision) -> str:
        """Return the same name for every target where the file is the same."""
        own = precision.source in ("encodings", "weights")
        return f"{precision}.{target.name}.onnx" if own else f"{precision}.onnx"

    def write(
        self, source: FileSource, graph: fx.GraphModule, target: Target, precision: Precision
    ) -> bytes:
        """Write the file that the source of the precision's scales asks for."""
        if precision.source == "encodings":
            return self.quantized(self.export(source, graph), source, target)
        if precision.source == "weights":
            return self.weights(source, graph)
        if precision.source == "running":
            return self.running(source)
        return self.floats(source, precision)

    def export(self, source: FileSource, graph: fx.GraphModule, opset: int = OPSET) -> bytes:
        """Return a graph as ONNX, with the subject's free axes; equal graphs are written once."""
        written = f"{opset} {tensors_digest(graph.state_dict())} {graph.code}"
        return source.once(
            written, lambda: to_onnx(graph, source.inputs, source.state.subject.free_axes, opset)
        )

    def floats(self, source: FileSource, precision: Precision = FLOAT32) -> bytes:
        """Return a float file."""
        graph = self.float_graph(source, precision)
        return self.export(source, graph, OPSETS.get(precision, OPSET))

    def quantized(self, model: bytes, source: FileSource, target: Target) -> bytes:
        """Return a file of the table as the runtime wants it."""
        return model

    def weights(self, source: FileSource, graph: fx.GraphModule) -> bytes:
        """Return a file whose weights alone are integers."""
        raise ExportError("this runtime has no files whose weights alone are integers")

    def running(self, source: FileSource) -> bytes:
        """Return a file that finds the ranges of activations while it runs."""
        raise ExportError("this runtime has no files that find ranges while they run")

    def describe(self, content: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return inputs and outputs of a model."""
        return describe_onnx(content)

    def inner_tensors(self, content: bytes) -> list[InnerTensor]:
        """Return what the file's ``QuantizeLinear`` operators write."""
        graph = onnx.load_from_string(content).graph
        constants = {t.name: t for t in graph.initializer}

        def value(name: str) -> Any:
            return onnx.numpy_helper.to_array(constants[name]).item()

        return [
            InnerTensor(node.output[0], value(node.input[1]), value(node.input[2]))
            for node in graph.node
            if node.op_type == "QuantizeLinear"
        ]
