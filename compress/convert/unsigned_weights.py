"""Weights as uint8, for processors whose kernels saturate with those of int8."""

from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from edgedl.compress.convert.foreign import ForeignNetwork
from edgedl.compress.convert.requantize import Requantized
from edgedl.compress.modelfile.onnx_graphs import names_read
from edgedl.compress.targets.target import MAX_WEIGHT_BITS, Target
from edgedl.runtime.selfcheck.saturation import LARGEST_SAFE_WEIGHT

NOTE = (
    "without VNNI the kernels for int8 weights saturate: the weights are written as uint8, which "
    "is right and slower"
)
# What stands for 0: the integers of int8, so many higher.
ZERO = 128


def without_saturation(made: Requantized, network: ForeignNetwork, target: Target) -> Requantized:
    """Return a file whose weights the target's kernels add up rightly, on this processor, too.

    Without VNNI the kernels of ONNX Runtime and OpenVINO for uint8 activations and int8 weights add
    two products in 16 bits, which saturate. ONNX Runtime's for two uint8 operands do not, and are
    slower; OpenVINO computes convolutions of them in float.

    Args:
        made: from ``requantize``; comes back as it is where nothing saturates.
        network: that it was made of.
        target: that it was made for.
    """
    if target.weight_bits_here == MAX_WEIGHT_BITS or not _has_large_weights(network):
        return made
    model = onnx.load_from_string(made.content)
    _use_uint8(model)
    onnx.checker.check_model(model)
    return replace(made, content=model.SerializeToString(), notes=(*made.notes, NOTE))


def _has_large_weights(network: ForeignNetwork) -> bool:
    stored = [w.integers for w in network.weights.values() if w.integers.size]
    return any(max(-int(w.min()), int(w.max())) > LARGEST_SAFE_WEIGHT for w in stored)


def _use_uint8(model: onnx.ModelProto) -> None:
    """Store the int8 weights of a QDQ model as uint8, in place; it computes the same."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    replaced: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or len(node.input) < 3:
            continue
        integers, zero_point = stored.get(node.input[0]), stored.get(node.input[2])
        if integers is None or zero_point is None or len(integers.dims) < 2:
            continue
        if integers.data_type != onnx.TensorProto.INT8:
            continue
        for position, tensor in ((0, integers), (2, zero_point)):
            name = f"{tensor.name}_uint8"
            if name not in stored:
                values = numpy_helper.to_array(tensor).astype(np.int16) + ZERO
                stored[name] = numpy_helper.from_array(values.astype(np.uint8), name)
                model.graph.initializer.append(stored[name])
            node.input[position] = name
            replaced.add(tensor.name)
    read = {name for node in model.graph.node for name in names_read(node)}
    for name in replaced - read:
        model.graph.initializer.remove(stored[name])
