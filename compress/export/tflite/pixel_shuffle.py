"""Pixel shuffles as the runtime's own operator, in a converted TFLite file.

The converter writes a pixel shuffle as four transpositions and three reshapes. TFLite has one
operator for it, ``DEPTH_TO_SPACE``, which wants the channels in another order: all channels of the
first phase, then of the second. The convolution in front of it can give them in that order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedl.compress.export.tflite.file import TfliteFile
from edgedl.compress.graph.pictures import TO_CHANNELS_FIRST, TO_CHANNELS_LAST

# Version of the operator that takes int8, and what it takes.
VERSION = 2
TYPES = ("FLOAT32", "INT8")


def use_depth_to_space(model: bytes) -> bytes:
    """Return a model with ``DEPTH_TO_SPACE`` behind convolutions, where pixels were shuffled.

    A convolution whose weights are no constants or belong to others too, which is grouped, or whose
    result others read stays as it is. A model without such a pattern comes back as it is.
    """
    file = TfliteFile(model)
    changed = [_replace(file, convolution) for convolution in file.operators("CONV_2D")]
    return file.pack() if any(changed) else model


@dataclass(frozen=True)
class _Shuffle:
    """The operators of a pixel shuffle, channels first, between tensors with channels last.

    Attributes:
        operators: from the transposition to channels first on.
        result: tensor that they give.
        block: pixels along each axis that a pixel becomes.
        channels_last: whether the result has its channels last again.
    """

    operators: list[Any]
    result: int
    block: int
    channels_last: bool


def _replace(file: TfliteFile, convolution: Any) -> bool:
    """Rewrite what stands behind one convolution; say whether it was a pixel shuffle."""
    source = int(convolution.outputs[0])
    shuffle = _shuffle_behind(file, source)
    taken = [getattr(file.schema.TensorType, name) for name in TYPES]
    if shuffle is None or file.graph.tensors[source].type not in taken:
        return False
    if not file.same_grid(source, shuffle.result):
        return False
    constants = [int(i) for i in convolution.inputs[1:] if i >= 0]
    full = file.shape(constants[0])[3] == file.shape(convolution.inputs[0])[3]
    if not full or not all(_alone(file, i) for i in constants):
        return False
    _, height, width, channels = file.shape(source)
    phases, block = shuffle.block**2, shuffle.block
    order = np.arange(channels).reshape(-1, phases).T.ravel()
    moved = [_reorder(file, i, order) for i in constants]
    convolution.inputs = [convolution.inputs[0], *moved]
    shape = [1, height * block, width * block, channels // phases]
    first, result = shuffle.operators[0], shuffle.result
    if not shuffle.channels_last:
        result = file.add_tensor(source, shape, "_channels_last")
    _depth_to_space(file, file.graph.operators.index(first), source, result, block)
    if shuffle.channels_last:
        file.remove(shuffle.operators)
    else:
        first.inputs = [result, first.inputs[1]]
        first.outputs = [shuffle.result]
        file.remove(shuffle.operators[1:])
    return True


def _shuffle_behind(file: TfliteFile, source: int) -> _Shuffle | None:
    """Return the pixel shuffle of a tensor [1, H, W, C * block * block], if it is one."""
    operators: list[Any] = []
    tensor = source
    while len(operators) < 7:
        readers = file.readers(tensor)
        if len(readers) != 1 or not any(file.is_a(readers[0], k) for k in ("TRANSPOSE", "RESHAPE")):
            break
        operators.append(readers[0])
        tensor = int(readers[0].outputs[0])
    shapes = [file.shape(op.outputs[0]) for op in operators]
    _, height, width, channels = file.shape(source)
    if len(operators) < 6 or len(shapes[1]) != 4:
        return None
    block = shapes[1][1]
    outputs = channels // block**2
    expected = [
        [1, channels, height, width],
        [outputs, block, block, height * width],
        [outputs, block, height * width, block],
        [outputs, block, height, width * block],
        [outputs, height, block, width * block],
        [1, outputs, height * block, width * block],
    ]
    orders = {0: TO_CHANNELS_FIRST, 2: [0, 1, 3, 2], 4: [0, 2, 1, 3]}
    if block < 2 or shapes[:6] != expected:
        return None
    if not all(file.transposes(operators[i], order) for i, order in orders.items()):
        return None
    if not all(file.is_a(operators[i], "RESHAPE") for i in (1, 3, 5)):
        return None
    last = len(operators) == 7 and file.transposes(operators[6], TO_CHANNELS_LAST)
    operators = operators[: 7 if last else 6]
    return _Shuffle(operators, int(operators[-1].outputs[0]), block, last)


def _alone(file: TfliteFile, constant: int) -> bool:
    """Say whether a tensor is a constant that one operator reads."""
    return bool(file.content(constant)) and len(file.readers(constant)) == 1


def _reorder(file: TfliteFile, constant: int, order: Any) -> int:
    """Write a constant [channels, ...] with its channels in another order; return its index."""
    rows = np.frombuffer(file.content(constant), np.uint8).reshape(len(order), -1)
    moved = file.write_constant(constant, rows[order].tobytes(), "_phases")
    grid = file.graph.tensors[moved].quantization
    if grid is not None and grid.scale is not None and len(grid.scale) == len(order):
        own = file.schema.QuantizationParametersT()
        own.scale = np.asarray(grid.scale, np.float32)[order]
        own.zeroPoint = np.asarray(grid.zeroPoint, np.int64)[order]
        own.quantizedDimension = grid.quantizedDimension
        file.graph.tensors[moved].quantization = own
    return moved


def _depth_to_space(file: TfliteFile, place: int, source: int, result: int, block: int) -> None:
    operator = file.insert(place, "DEPTH_TO_SPACE", VERSION, [source], [result])
    operator.builtinOptionsType = file.schema.BuiltinOptions.DepthToSpaceOptions
    operator.builtinOptions = file.schema.DepthToSpaceOptionsT()
    operator.builtinOptions.blockSize = block
