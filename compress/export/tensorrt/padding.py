"""Padding in front of a convolution, taken into it: an operator of its own costs a copy of the map.

torch's convolutions pad both sides alike; those of ONNX pad every side by a number of its own.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt
import onnx

Constants = dict[str, npt.NDArray[np.generic]]


def fold_padding(model: bytes) -> bytes:
    """Return a model whose zero padding of height and width is part of the convolutions behind it.

    Between the two may stand a quantize and a dequantize whose zero point is 0: zero is on every
    such grid.
    """
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    for convolution in [n for n in graph.node if n.op_type == "Conv"]:
        reader, pad = convolution, producers.get(convolution.input[0])
        if pad is not None and pad.op_type == "DequantizeLinear":
            quantize = producers.get(pad.input[0])
            if quantize is None or not _keeps_zero(quantize, constants):
                continue
            if readers[pad.output[0]] > 1 or readers[quantize.output[0]] > 1:
                continue
            reader, pad = quantize, producers.get(quantize.input[0])
        if pad is None or readers[pad.output[0]] > 1:
            continue
        sides = _zero_padding(pad, constants)
        if sides is not None and _widen(convolution, sides):
            reader.input[0] = pad.input[0]
            graph.node.remove(pad)
    return bytes(loaded.SerializeToString())


def _keeps_zero(node: onnx.NodeProto, constants: Constants) -> bool:
    zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
    return node.op_type == "QuantizeLinear" and zero_point is not None and not zero_point.any()


def _zero_padding(node: onnx.NodeProto, constants: Constants) -> list[int] | None:
    """Return what a Pad adds to height and width, before and behind: [t, l, b, r]; None if else."""
    if node.op_type != "Pad" or any(
        a.name == "mode" and a.s != b"constant" for a in node.attribute
    ):
        return None
    filled = len(node.input) > 2 and node.input[2]
    if filled and (filled not in constants or constants[filled].any()):
        return None
    if (len(node.input) > 3 and node.input[3]) or node.input[1] not in constants:
        return None
    sides = [int(n) for n in constants[node.input[1]]]
    if len(sides) != 8 or min(sides) < 0 or any(sides[i] for i in (0, 1, 4, 5)):
        return None
    return [sides[2], sides[3], sides[6], sides[7]]


def _widen(convolution: onnx.NodeProto, sides: list[int]) -> bool:
    """Add to what a convolution pads; say whether it could be done."""
    attributes = {a.name: a for a in convolution.attribute}
    if "auto_pad" in attributes and attributes["auto_pad"].s not in (b"NOTSET", b""):
        return False
    if "pads" in attributes:
        own = list(attributes["pads"].ints)
        convolution.attribute.remove(attributes["pads"])
    else:
        own = [0, 0, 0, 0]
    both = [a + b for a, b in zip(own, sides, strict=True)]
    convolution.attribute.append(onnx.helper.make_attribute("pads", both))
    return True
