"""The layers of a TFLite file."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgedl.compress.modelfile.layer import FileLayer, Grid, work_of
from edgedl.compress.modelfile.tflite_macs import PRODUCTS, Products, count_macs
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line

MAGIC = b"TFL3"
# Custom operators that have no products.
_WITHOUT_PRODUCTS = ("TFLite_Detection_PostProcess", "Delegate")
# How often an operator runs the subgraphs that its settings name. Where it is not said here, it is
# not known: a loop.
_TIMES_RUN = {
    **dict.fromkeys(("thenSubgraphIndex", "elseSubgraphIndex", "branchSubgraphIndices"), 1),
    **dict.fromkeys(("decompositionSubgraphIndex", "subgraph"), 1),
    # Once when the file is loaded.
    "initSubgraphIndex": 0,
}
# Of several subgraphs these run one.
_BRANCHES = ("IF", "STABLEHLO_CASE")


def read_tflite_layers(content: bytes, source: str) -> list[FileLayer]:
    """Return the layers of a model; those of a branch or a loop stand behind its operator.

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
        raise BackendUnavailableError.of(
            error, f"ai-edge-litert is missing, it reads such files: {install_line('tflite')}"
        ) from error
    if content[4:8] != MAGIC:
        raise BadInputError(f"{source} is not a TFLite model: it does not say {MAGIC.decode()}")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        return _TFLiteReader(model, schema, content).layers()
    except Exception as error:
        # The generated reader trusts every offset in the file.
        raise BadInputError(
            f"{source} is not a whole TFLite model ({type(error).__name__}: {error})"
        ) from error


class _TFLiteReader:
    """A subgraph with what its operators need to be described."""

    def __init__(self, model: Any, schema: Any, content: bytes, path: tuple[int, ...] = (0,)):
        """Take a model and the numbers of the subgraphs around one, which is the last of them."""
        self._model, self._schema, self._content, self._path = model, schema, content, path
        self._graph = model.subgraphs[path[-1]]
        self._operators = _names(schema.BuiltinOperator)
        self._types = {number: name.lower() for number, name in _names(schema.TensorType).items()}
        inputs = [self._graph.tensors[i] for i in _numbers(model.subgraphs[0].inputs)]
        kinds = {self._kind(operator) for operator in self._graph.operators}
        # A free first axis is then not that of the samples alone.
        self._sizes_are_free = any(None in _shape(tensor)[1:] for tensor in inputs)
        self._sizes_are_free |= bool(kinds & {"WHERE", "UNIQUE"})

    def layers(self) -> list[FileLayer]:
        return [layer for operator in self._graph.operators for layer in self._described(operator)]

    def _described(self, operator: Any) -> list[FileLayer]:
        """Return an operator, and behind it the layers of the subgraphs that it runs."""
        layer, inner = self._layer(operator), []
        works: list[int | None] = []
        for name, index in _subgraphs(operator):
            if index in self._path:
                raise ValueError(f"subgraph {index} runs itself")
            path = (*self._path, index)
            layers = _TFLiteReader(self._model, self._schema, self._content, path).layers()
            works.append(work_of(layers).repeated(_TIMES_RUN.get(name)))
            inside = f"{layer.name}/{name.removesuffix('Index')}"
            inner += [
                replace(x, name=f"{inside}/{x.name}", inside=f"{inside}/{x.inside}".rstrip("/"))
                for x in layers
            ]
        if works:
            branches = layer.operator in _BRANCHES
            same = works[0] if len(set(works)) == 1 else None
            layer = replace(layer, macs=same if branches else _sum(works))
        return [layer, *inner]

    def _layer(self, operator: Any) -> FileLayer:
        places = [self._graph.tensors[i] if i >= 0 else None for i in _numbers(operator.inputs)]
        read = [tensor for tensor in places if tensor is not None]
        written = [self._graph.tensors[i] for i in _numbers(operator.outputs)]
        constants = [t for t in read if self._bytes(t)]
        data = next((t for t in read if not self._bytes(t)), None)
        kind = self._kind(operator)
        weight = next((t for t in read[1:] if t in constants and len(_shape(t)) > 1), None)
        # What stores a variable writes nothing; it has the name of the variable's handle.
        named = [*written, *read][:1]
        return FileLayer(
            name=_short(named[0].name.decode(errors="replace")) if named else kind,
            operator=kind,
            shape=_shape(written[0]) if written else (),
            inputs=self._types[data.type] if data is not None else "",
            output=self._grid(written[0]) if written else None,
            weight=self._grid(weight) if weight is not None else None,
            weight_bytes=sum(self._bytes(t) for t in constants),
            macs=self._macs(operator, kind, places, written),
        )

    def _macs(self, operator: Any, kind: str, places: list[Any], written: list[Any]) -> int | None:
        if self._is_custom(operator):
            return 0 if kind in _WITHOUT_PRODUCTS else None
        known = _one_sample(written[0]) if written else ()
        values = [t for t in (*places, *written) if t is not None and not self._bytes(t)]
        first = 0 if self._sizes_are_free else 1
        free = not known or any(None in _shape(t)[first:] for t in values)
        if kind in PRODUCTS and free:
            return None
        read = [_one_sample(t) if t is not None else () for t in places]
        constant = [t is not None and bool(self._bytes(t)) for t in places]
        return count_macs(kind, Products(known, read, constant, operator.builtinOptions))

    def _code(self, operator: Any) -> Any:
        return self._model.operatorCodes[operator.opcodeIndex]

    def _is_custom(self, operator: Any) -> bool:
        return bool(self._code(operator).customCode)

    def _kind(self, operator: Any) -> str:
        code = self._code(operator)
        if code.customCode:
            return str(code.customCode.decode(errors="replace"))
        return self._operators[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def _bytes(self, tensor: Any) -> int:
        buffer = self._model.buffers[tensor.buffer]
        # Of large models the data stand behind the structure; the buffer says where.
        return int(buffer.size) if buffer.data is None else len(buffer.data)

    def _data(self, tensor: Any) -> bytes:
        buffer = self._model.buffers[tensor.buffer]
        if buffer.data is None:
            return self._content[buffer.offset : buffer.offset + buffer.size]
        return bytes(buffer.data)

    def _grid(self, tensor: Any) -> Grid | None:
        found = tensor.quantization
        if found is None:
            return None
        if found.detailsType == self._schema.QuantizationDetails.BlockwiseQuantization:
            return self._blocks(tensor, found.details)
        if found.scale is None or not len(found.scale):
            return None
        zeros = found.zeroPoint if found.zeroPoint is not None else [0] * len(found.scale)
        return Grid(
            self._types[tensor.type],
            tuple(float(s) for s in found.scale),
            tuple(int(z) for z in zeros),
        )

    def _blocks(self, tensor: Any, blocks: Any) -> Grid:
        """Return a grid whose scales, and maybe zero points, are tensors of their own."""
        scales = self._numbers_in(self._graph.tensors[blocks.scales])
        zeros = [0.0] * len(scales)
        # The first tensor of a file is never one of zero points: 0 says that there are none.
        if blocks.zeroPoints > 0:
            zeros = self._numbers_in(self._graph.tensors[blocks.zeroPoints])
        dtype = self._types[tensor.type]
        return Grid(dtype, tuple(scales), tuple(map(int, zeros)), int(blocks.blockSize))

    def _numbers_in(self, tensor: Any) -> list[float]:
        dtype = np.dtype(self._types[tensor.type])
        return [float(x) for x in np.frombuffer(self._data(tensor), dtype)]


def _subgraphs(operator: Any) -> list[tuple[str, int]]:
    """Return the subgraphs that an operator's settings name, by the setting."""
    found = []
    for options in (operator.builtinOptions, operator.builtinOptions2):
        for name, value in vars(options).items() if options is not None else ():
            if "subgraph" in name.lower():
                found += [(name, index) for index in _numbers(np.atleast_1d(value))]
    return [(name, index) for name, index in found if index >= 0]


def _sum(works: Sequence[int | None]) -> int | None:
    known = [macs for macs in works if macs is not None]
    return sum(known) if len(known) == len(works) else None


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


def _shape(tensor: Any) -> tuple[int | None, ...]:
    """Return the sizes of a tensor, None where the file leaves them free."""
    sizes = _numbers(tensor.shape)
    signature = _numbers(tensor.shapeSignature)
    if len(signature) != len(sizes):
        signature = sizes
    return tuple(None if size < 0 else size for size in signature)


def _one_sample(tensor: Any) -> tuple[int, ...]:
    """Return the sizes of a tensor in the example of one sample that every file holds."""
    return tuple(abs(size) for size in _numbers(tensor.shape))


def _numbers(values: Any) -> list[int]:
    """Return a vector of the format, which is None where it is empty."""
    return [] if values is None else [int(x) for x in values]


def _names(enumeration: Any) -> dict[int, str]:
    return {n: name for name, n in vars(enumeration).items() if isinstance(n, int)}
