"""Take paddings into the convolutions behind them, in a converted TFLite file.

The converter does so between float operators alone: between integers it leaves the padding as it
came from torch, channels first, with a transposition before and after it.
"""

from typing import Any

from edgedl.compress.export.tflite.file import Integers, TfliteFile
from edgedl.compress.graph.pictures import TO_CHANNELS_FIRST, TO_CHANNELS_LAST


def absorb_padding(model: bytes) -> bytes:
    """Return a model without transpose, pad, transpose in front of a convolution.

    The convolution pads by itself where it can (``SAME``); otherwise a pad is left that needs no
    transposition. A model without such a pattern comes back as it is.
    """
    file = TfliteFile(model)
    changed = [_absorb(file, pad) for pad in file.operators("PAD")]
    return file.pack() if any(changed) else model


def _absorb(file: TfliteFile, pad: Any) -> bool:
    """Rewrite one pattern; say whether it was one."""
    before = file.writer(pad.inputs[0])
    readers = file.readers(pad.outputs[0])
    if before is None or len(file.readers(pad.inputs[0])) != 1 or len(readers) != 1:
        return False
    after = readers[0]
    if not (
        file.transposes(before, TO_CHANNELS_FIRST) and file.transposes(after, TO_CHANNELS_LAST)
    ):
        return False
    source, result = int(before.inputs[0]), int(after.outputs[0])
    if not file.same_grid(source, result):
        return False
    convolutions = file.readers(result)
    widths = file.integers(pad.inputs[1])[[0, 2, 3, 1]]
    if convolutions and all(_pads_alike(file, c, source, widths) for c in convolutions):
        for convolution in convolutions:
            convolution.builtinOptions.padding = file.schema.Padding.SAME
            convolution.inputs = [source, *list(convolution.inputs)[1:]]
        gone = [before, pad, after]
    else:
        moved = file.add_constant(pad.inputs[1], widths.tobytes(), "_channels_last")
        pad.inputs, pad.outputs = [source, moved], [result]
        gone = [before, after]
    file.remove(gone)
    return True


def _pads_alike(file: TfliteFile, operator: Any, source: int, widths: Integers) -> bool:
    """Say whether a convolution's ``SAME`` would pad its input [N, H, W, C] like that."""
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D")
    if not any(file.is_a(operator, kind) for kind in kinds) or widths[[0, 3]].any():
        return False
    options = operator.builtinOptions
    if options.padding != file.schema.Padding.VALID:
        return False
    kernel, size = file.shape(operator.inputs[1])[1:3], file.shape(source)[1:3]
    strides = (options.strideH, options.strideW)
    dilations = (options.dilationHFactor, options.dilationWFactor)
    return all(
        same_padding(n, k, int(s), int(d)) == tuple(w)
        for n, k, s, d, w in zip(
            size, kernel, strides, dilations, widths[1:3].tolist(), strict=True
        )
    )


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the positions that ``SAME`` adds before and after an axis.

    >>> same_padding(112, 3, 2, 1), same_padding(7, 3, 1, 1)
    ((0, 1), (1, 1))
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
