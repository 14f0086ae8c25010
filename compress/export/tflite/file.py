"""The operators and tensors of a converted TFLite file, to be rewritten in memory."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgedl.compress.export.tflite.pack import pack_tflite

Integers = npt.NDArray[np.int32]


class TfliteFile:
    """The first subgraph of a model, and who reads and writes its tensors."""

    def __init__(self, model: bytes) -> None:
        """Read a model."""
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.model: Any = schema.ModelT.InitFromPackedBuf(model, 0)
        self.graph: Any = self.model.subgraphs[0]

    def pack(self) -> bytes:
        """Return the model as a file."""
        return pack_tflite(self.model)

    def operators(self, kind: str) -> list[Any]:
        """Return the operators of a kind, by its name in the schema."""
        return [op for op in self.graph.operators if self.is_a(op, kind)]

    def is_a(self, operator: Any, kind: str) -> bool:
        """Say whether an operator is of a kind."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        wanted = getattr(self.schema.BuiltinOperator, kind)
        return bool(max(code.builtinCode, code.deprecatedBuiltinCode) == wanted)

    def transposes(self, operator: Any, order: list[int]) -> bool:
        """Say whether an operator is the transposition to an order of axes."""
        return self.is_a(operator, "TRANSPOSE") and (
            self.integers(operator.inputs[1]).tolist() == order
        )

    def same_grid(self, first: int, second: int) -> bool:
        """Say whether two tensors have one type and one scale, so that integers mean the same."""
        a, b = self.graph.tensors[first], self.graph.tensors[second]
        grids = [
            ([], [])
            if t.quantization is None or t.quantization.scale is None
            else (list(t.quantization.scale), list(t.quantization.zeroPoint))
            for t in (a, b)
        ]
        return bool(a.type == b.type and grids[0] == grids[1])

    def writer(self, tensor: int) -> Any:
        """Return the operator that computes a tensor; None for inputs and constants."""
        return next((op for op in self.graph.operators if tensor in op.outputs), None)

    def readers(self, tensor: int) -> list[Any]:
        """Return the operators that read a tensor; one that the graph returns has no list."""
        if tensor in self.graph.outputs:
            return []
        return [op for op in self.graph.operators if tensor in op.inputs]

    def shape(self, tensor: int) -> list[int]:
        """Return the shape of a tensor."""
        return [int(d) for d in self.graph.tensors[tensor].shape]

    def content(self, tensor: int) -> bytes:
        """Return the bytes of a constant; none where an operator computes the tensor."""
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        return b"" if data is None else bytes(data)

    def integers(self, tensor: int) -> Integers:
        """Return a constant of shapes, axes or widths."""
        return np.frombuffer(self.content(tensor), np.int32).reshape(self.shape(tensor))

    def insert(
        self, place: int, kind: str, version: int, inputs: list[int], outputs: list[int]
    ) -> Any:
        """Insert an operator at a place among the others; return it, without options."""
        code, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, kind)
        code.version = version
        self.model.operatorCodes.append(code)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        self.graph.operators.insert(place, operator)
        return operator

    def add_constant(
        self, like: int, content: bytes, suffix: str, shape: list[int] | None = None
    ) -> int:
        """Add a tensor of the type and grid of another, and its shape, with content of its own."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(buffer)
        sizes = self.shape(like) if shape is None else shape
        return self.add_tensor(like, sizes, suffix, len(self.model.buffers) - 1)

    def write_constant(self, constant: int, content: bytes, suffix: str) -> int:
        """Give a constant that one operator reads other content; return its index.

        It is another tensor where its bytes are those of others, too.
        """
        buffer = self.graph.tensors[constant].buffer
        if sum(t.buffer == buffer for t in self.graph.tensors) > 1:
            return self.add_constant(constant, content, suffix)
        self.model.buffers[buffer].data = np.frombuffer(content, np.uint8)
        return constant

    def add_tensor(self, like: int, shape: list[int], suffix: str, buffer: int = 0) -> int:
        """Add a tensor of the type and grid of another; return its index."""
        source, tensor = self.graph.tensors[like], self.schema.TensorT()
        tensor.shape, tensor.type, tensor.quantization = shape, source.type, source.quantization
        tensor.name = bytes(source.name) + suffix.encode()
        tensor.buffer = buffer
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_metadata(self, name: str, content: bytes) -> None:
        """Add a named piece of data that no runtime reads."""
        buffer, entry = self.schema.BufferT(), self.schema.MetadataT()
        buffer.data = np.frombuffer(content, np.uint8)
        entry.name, entry.buffer = name, len(self.model.buffers)
        self.model.buffers.append(buffer)
        self.model.metadata = [*(self.model.metadata or []), entry]

    def remove(self, gone: list[Any]) -> None:
        """Take operators out of the graph."""
        self.graph.operators = [op for op in self.graph.operators if op not in gone]
