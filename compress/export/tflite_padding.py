"""Take paddings into the convolutions behind them, in a converted TFLite file.

The converter does so between float operators alone: between integers it leaves the padding as it
came from torch, channels first, with a transposition before and after it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgedl.compress.export.pack_tflite import pack_tflite

TO_CHANNELS_FIRST = [0, 3, 1, 2]
TO_CHANNELS_LAST = [0, 2, 3, 1]
Integers = npt.NDArray[np.int32]


def absorb_padding(model: bytes) -> bytes:
    """Return a model without transpose, pad, transpose in front of a convolution.

    The convolution pads by itself where it can (``SAME``); otherwise a pad is left that needs no
    transposition. A model without such a pattern comes back as it is.
    """
    from ai_edge_litert import schema_py_generated as schema

    file = _File(schema.ModelT.InitFromPackedBuf(model, 0), schema)
    changed = [file.absorb(pad) for pad in file.operators("PAD")]
    return pack_tflite(file.model) if any(changed) else model


class _File:
    """The first subgraph of a model, and who reads and writes its tensors."""

    def __init__(self, model: Any, schema: Any) -> None:
        self.model, self._schema = model, schema
        self._graph = model.subgraphs[0]

    def operators(self, kind: str) -> list[Any]:
        return [op for op in self._graph.operators if self._is(op, kind)]

    def absorb(self, pad: Any) -> bool:
        """Rewrite one pattern; say whether it was one."""
        before = self._writer(pad.inputs[0])
        readers = self._readers(pad.outputs[0])
        if before is None or len(self._readers(pad.inputs[0])) != 1 or len(readers) != 1:
            return False
        after = readers[0]
        if not (
            self._transposes(before, TO_CHANNELS_FIRST)
            and self._transposes(after, TO_CHANNELS_LAST)
        ):
            return False
        source, result = int(before.inputs[0]), int(after.outputs[0])
        if not self._same_grid(source, result):
            return False
        convolutions = self._readers(result)
        widths = self._constant(pad.inputs[1])[[0, 2, 3, 1]]
        if convolutions and all(self._pads_alike(c, source, widths) for c in convolutions):
            for convolution in convolutions:
                convolution.builtinOptions.padding = self._schema.Padding.SAME
                convolution.inputs = [source, *list(convolution.inputs)[1:]]
            gone = [before, pad, after]
        else:
            pad.inputs = [source, self._add_constant(pad.inputs[1], widths)]
            pad.outputs = [result]
            gone = [before, after]
        self._graph.operators = [op for op in self._graph.operators if op not in gone]
        return True

    def _pads_alike(self, operator: Any, source: int, widths: Integers) -> bool:
        """Say whether a convolution's ``SAME`` would pad its input [N, H, W, C] like that."""
        kinds = ("CONV_2D", "DEPTHWISE_CONV_2D")
        if not any(self._is(operator, kind) for kind in kinds) or widths[[0, 3]].any():
            return False
        options = operator.builtinOptions
        if options.padding != self._schema.Padding.VALID:
            return False
        kernel = self._graph.tensors[operator.inputs[1]].shape[1:3]
        size = self._graph.tensors[source].shape[1:3]
        strides = (options.strideH, options.strideW)
        dilations = (options.dilationHFactor, options.dilationWFactor)
        return all(
            same_padding(int(n), int(k), int(s), int(d)) == tuple(w)
            for n, k, s, d, w in zip(
                size, kernel, strides, dilations, widths[1:3].tolist(), strict=True
            )
        )

    def _transposes(self, operator: Any, order: list[int]) -> bool:
        return self._is(operator, "TRANSPOSE") and (
            self._constant(operator.inputs[1]).tolist() == order
        )

    def _same_grid(self, first: int, second: int) -> bool:
        """Say whether two tensors have one type and one scale, so that zeros are the same."""
        a, b = self._graph.tensors[first], self._graph.tensors[second]
        grids = [
            ([], [])
            if t.quantization is None or t.quantization.scale is None
            else (list(t.quantization.scale), list(t.quantization.zeroPoint))
            for t in (a, b)
        ]
        return bool(a.type == b.type and grids[0] == grids[1])

    def _is(self, operator: Any, kind: str) -> bool:
        code = self.model.operatorCodes[operator.opcodeIndex]
        wanted = getattr(self._schema.BuiltinOperator, kind)
        return bool(max(code.builtinCode, code.deprecatedBuiltinCode) == wanted)

    def _writer(self, tensor: int) -> Any:
        return next((op for op in self._graph.operators if tensor in op.outputs), None)

    def _readers(self, tensor: int) -> list[Any]:
        """Return the operators that read a tensor; one that the graph returns has no list."""
        if tensor in self._graph.outputs:
            return []
        return [op for op in self._graph.operators if tensor in op.inputs]

    def _constant(self, tensor: int) -> Integers:
        found = self._graph.tensors[tensor]
        content = bytes(self.model.buffers[found.buffer].data)
        return np.frombuffer(content, np.int32).reshape([int(d) for d in found.shape])

    def _add_constant(self, like: int, values: Integers) -> int:
        """Add a tensor of the shape and type of another with its own values; return its index."""
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        source, tensor = self._graph.tensors[like], self._schema.TensorT()
        tensor.shape, tensor.type = source.shape, source.type
        tensor.name = bytes(source.name) + b"_channels_last"
        tensor.buffer = len(self.model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the positions that ``SAME`` adds before and after an axis.

    >>> same_padding(112, 3, 2, 1), same_padding(7, 3, 1, 1)
    ((0, 1), (1, 1))
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
