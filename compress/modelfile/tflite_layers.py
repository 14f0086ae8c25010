"""The layers of a TFLite file."""

import math
from typing import Any

from edgedl.compress.modelfile.layer import FileLayer, Grid
from edgedl.runtime.errors import BackendUnavailableError, BadInputError

MAGIC = b"TFL3"


def read_tflite_layers(content: bytes, source: str) -> list[FileLayer]:
    """Return the layers of the first subgraph of a model.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        BackendUnavailableError: ai-edge-litert is not installed; it has the format's reader.
        BadInputError: the file is not a whole TFLite model.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise BackendUnavailableError(
            "ai-edge-litert is missing, it reads such files: pip install 'edgedl[tflite]'"
        ) from error
    if content[4:8] != MAGIC:
        raise BadInputError(f"{source} is not a TFLite model: it does not say {MAGIC.decode()}")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        return _TFLiteReader(model, schema).layers()
    except Exception as error:
        # The generated reader trusts every offset in the file.
        raise BadInputError(
            f"{source} is not a whole TFLite model ({type(error).__name__}: {error})"
        ) from error


class _TFLiteReader:
    """A model with what its operators need to be described."""

    def __init__(self, model: Any, schema: Any) -> None:
        self._model = model
        self._graph = model.subgraphs[0]
        self._operators = _names(schema.BuiltinOperator)
        self._types = {number: name.lower() for number, name in _names(schema.TensorType).items()}

    def layers(self) -> list[FileLayer]:
        return [self._layer(operator) for operator in self._graph.operators]

    def _layer(self, operator: Any) -> FileLayer:
        read = [self._graph.tensors[i] for i in operator.inputs if i >= 0]
        output = self._graph.tensors[operator.outputs[0]]
        constants = [t for t in read if self._bytes(t)]
        data = next((t for t in read if not self._bytes(t)), None)
        kind = self._kind(operator)
        weight = next((t for t in read[1:] if t in constants and len(_shape(t)) > 1), None)
        return FileLayer(
            name=_short(output.name.decode(errors="replace")),
            operator=kind,
            shape=_shape(output),
            inputs=self._types[data.type] if data is not None else "",
            output=self._grid(output),
            weight=self._grid(weight) if weight is not None else None,
            weight_bytes=sum(self._bytes(t) for t in constants),
            macs=_macs(kind, _shape(output), [_shape(t) for t in read]),
        )

    def _kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        if code.customCode:
            return str(code.customCode.decode(errors="replace"))
        return self._operators[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def _bytes(self, tensor: Any) -> int:
        data = self._model.buffers[tensor.buffer].data
        return 0 if data is None else len(data)

    def _grid(self, tensor: Any) -> Grid | None:
        found = tensor.quantization
        if found is None or found.scale is None or not len(found.scale):
            return None
        zeros = found.zeroPoint if found.zeroPoint is not None else [0] * len(found.scale)
        return Grid(
            self._types[tensor.type],
            tuple(float(s) for s in found.scale),
            tuple(int(z) for z in zeros),
        )


def _short(name: str) -> str:
    """Return "stem.1" for litert-torch's "...Net/...Sequential_stem/...Conv2d_1;".

    Operators that were fused have several such names; the first is the one that comes last.
    """
    path = name.partition(";")[0]
    if "<locals>" in path:
        return path.rpartition(".")[2]
    steps = [step.rpartition(".")[2] for step in path.split("/")]
    if len(steps) == 1:
        return path
    return ".".join(step.partition("_")[2] for step in steps[1:])


def _macs(kind: str, output: tuple[int, ...], read: list[tuple[int, ...]]) -> int:
    """Count multiply-accumulates from shapes: convolutions are [C_out, H, W, C_in]."""
    if kind == "CONV_2D":
        return math.prod(output) * math.prod(read[1][1:])
    if kind == "DEPTHWISE_CONV_2D":
        return math.prod(output) * math.prod(read[1][1:3])
    if kind == "TRANSPOSE_CONV":
        return math.prod(read[2]) * math.prod(read[1][:3])
    if kind == "FULLY_CONNECTED":
        return math.prod(output) * read[1][-1]
    if kind == "BATCH_MATMUL":
        return math.prod(output) * read[0][-1]
    return 0


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in tensor.shape) if tensor.shape is not None else ()


def _names(enumeration: Any) -> dict[int, str]:
    return {n: name for name, n in vars(enumeration).items() if isinstance(n, int)}
