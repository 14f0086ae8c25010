"""Files for TFLite (LiteRT)."""

from collections import Counter

import numpy as np
from torch import fx

from edgedl.compress.export.exporter import Exporter, FileSource, InnerTensor
from edgedl.compress.export.tflite.int16 import to_tflite_int16
from edgedl.compress.export.tflite.interface import describe_tflite
from edgedl.compress.export.tflite.quantizer import to_dynamic_int8, to_float16_weights
from edgedl.compress.export.tflite.weights import weights_for_tflite
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.pictures import Pictures
from edgedl.compress.modelfile.tflite_layers import read_tflite_layers
from edgedl.compress.targets.target import Target
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.precision import FLOAT16, FLOAT32, Precision

# Operators that change no value, or turn floats into integers and back.
MOVING = {"QUANTIZE", "DEQUANTIZE", "RESHAPE", "TRANSPOSE", "SLICE", "CONCATENATION", "GATHER"}


class TFLiteExporter(Exporter):
    """Writes TFLite files through litert-torch; integers come from the pairs of the graph."""

    def float_graph(self, source: FileSource, precision: Precision) -> fx.GraphModule:
        """Return the canonical graph: the converter rounds the weights of float16 files."""
        return source.state.graph

    def path(self, target: Target, precision: Precision) -> str:
        """Return a name without the target where that is the runtime itself."""
        own = precision.source in ("encodings", "weights") and target.name != target.runtime
        return f"{precision}.{target.name}.tflite" if own else f"{precision}.tflite"

    def write(
        self, source: FileSource, graph: fx.GraphModule, target: Target, precision: Precision
    ) -> bytes:
        """Write the file that the source of the precision's scales asks for."""
        pictures = source.pictures(target)
        inputs = source.inputs
        if precision.source == "encodings":
            islands = source.has_float_islands(target)
            if precision.activations == "int16":
                return to_tflite_int16(graph, inputs, target, islands, pictures)
            return to_tflite(graph, inputs, True, islands, pictures=pictures)
        if precision.source == "weights":
            model = to_tflite(graph, inputs, False, weights_as_they_are=True, pictures=pictures)
            return weights_for_tflite(model, source.weights.weights)
        if precision.source == "running":
            return to_dynamic_int8(self._float32(source, pictures))
        if precision is FLOAT16:
            return source.once(
                f"float16.tflite {pictures}",
                lambda: to_float16_weights(self._float32(source, pictures)),
            )
        return self._float32(source, pictures)

    def _float32(self, source: FileSource, pictures: Pictures) -> bytes:
        return source.once(
            f"float32.tflite {pictures}",
            lambda: to_tflite(source.state.graph, source.inputs, False, pictures=pictures),
        )

    def made_from(self, precision: Precision) -> Precision | None:
        """Say that float16 files are float32 files with narrower weights."""
        return FLOAT32 if precision is FLOAT16 else super().made_from(precision)

    def describe(self, content: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return inputs and outputs of a model."""
        return describe_tflite(content)

    def inner_tensors(self, content: bytes) -> list[InnerTensor]:
        """Return the int8 tensors that an operator writes, but those of shuffled channels."""
        from ai_edge_litert.interpreter import Interpreter

        with quiet():
            interpreter = Interpreter(model_content=content)
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

    def float_operators(self, content: bytes) -> list[str]:
        """Return the operators without weights that read floats."""
        layers = [x for x in read_tflite_layers(content, "the file") if not x.inside]
        floats = (la.operator for la in layers if la.inputs == "float32" and la.weight is None)
        return sorted(set(floats) - MOVING)


EXPORTER = TFLiteExporter()
