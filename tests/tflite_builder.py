"""TFLite files as somebody else's converter may write them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


@dataclass
class T:
    """A tensor.

    Attributes:
        shape: of its example; ``signature`` has -1 where a size is free.
        data: what it holds, if it is a constant; bytes where a type is packed.
        kind: of its elements, such as "FLOAT32".
        fields: what else its quantization says, by the schema's names.
    """

    name: str
    shape: Sequence[int]
    data: "np.ndarray | bytes | None" = None
    kind: str = "FLOAT32"
    signature: Sequence[int] | None = None
    quantization: dict[str, object] = field(default_factory=dict)


@dataclass
class Op:
    """An operator; a name that the schema does not have is that of a custom one."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: str = ""
    fields: dict[str, object] = field(default_factory=dict)


@dataclass
class Graph:
    tensors: Sequence[T]
    operators: Sequence[Op]
    inputs: Sequence[int]
    outputs: Sequence[int]


def tflite(*graphs: Graph) -> bytes:
    """Return a file of these subgraphs, the first of which is run."""
    buffers, codes = [_fill("Buffer")], []
    subgraphs = [_subgraph(graph, buffers, codes) for graph in graphs]
    model = _fill("Model", version=3, subgraphs=subgraphs, buffers=buffers)
    model.operatorCodes = [_code(kind) for kind in codes]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _subgraph(graph: Graph, buffers: list, codes: list[str]):
    tensors = [_tensor(tensor, buffers) for tensor in graph.tensors]
    operators = [_operator(operator, codes) for operator in graph.operators]
    return _fill(
        "SubGraph", name=b"g", tensors=tensors, operators=operators,
        inputs=list(graph.inputs), outputs=list(graph.outputs),
    )  # fmt: skip


def _tensor(tensor: T, buffers: list):
    number = 0
    if tensor.data is not None:
        data = tensor.data if isinstance(tensor.data, bytes) else tensor.data.tobytes()
        number = len(buffers)
        buffers.append(_fill("Buffer", data=list(data)))
    made = _fill(
        "Tensor", name=tensor.name.encode(), shape=list(tensor.shape), buffer=number,
        type=getattr(schema.TensorType, tensor.kind),
    )  # fmt: skip
    if tensor.signature is not None:
        made.shapeSignature = list(tensor.signature)
    if tensor.quantization:
        made.quantization = _fill("QuantizationParameters", **tensor.quantization)
    return made


def _operator(operator: Op, codes: list[str]):
    if operator.kind not in codes:
        codes.append(operator.kind)
    made = _fill(
        "Operator", opcodeIndex=codes.index(operator.kind),
        inputs=list(operator.inputs), outputs=list(operator.outputs),
    )  # fmt: skip
    if operator.options:
        which = "builtinOptions2" if operator.options.startswith("StableHLO") else "builtinOptions"
        kinds = schema.BuiltinOptions2 if which.endswith("2") else schema.BuiltinOptions
        setattr(made, f"{which}Type", getattr(kinds, operator.options))
        setattr(made, which, _fill(operator.options, **operator.fields))
    return made


def _code(kind: str):
    number = getattr(schema.BuiltinOperator, kind, None)
    if number is None:
        custom = schema.BuiltinOperator.CUSTOM
        return _fill(
            "OperatorCode", builtinCode=custom, deprecatedBuiltinCode=custom,
            customCode=kind.encode(), version=1,
        )  # fmt: skip
    return _fill(
        "OperatorCode", builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=1
    )


def blocks(**fields: object) -> dict[str, object]:
    """Return a quantization with a scale for each block."""
    return {
        "details": _fill("BlockwiseQuantization", **fields),
        "detailsType": schema.QuantizationDetails.BlockwiseQuantization,
    }


def _fill(kind: str, **fields: object):
    made = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made
