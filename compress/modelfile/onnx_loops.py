"""How often an ONNX operator runs the graphs inside it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx

from edgedl.compress.modelfile.onnx_shapes import Shape

ConstantOf = Callable[[str], npt.NDArray[np.generic] | None]


def times_run(
    node: onnx.NodeProto,
    graph: onnx.GraphProto,
    constant: ConstantOf,
    shape: Callable[[str], Shape | None],
) -> int | None:
    """Return how often an operator runs one of its graphs; None where that is not known.

    A branch is run once, where it is run.

    Args:
        node: the operator.
        graph: one of its graphs.
        constant: returns a stored value by its name.
        shape: returns a value's shape by its name.
    """
    if node.op_type == "If":
        return 1
    if node.op_type == "Loop":
        return _rounds(node, graph, constant)
    return _slices(node, shape) if node.op_type == "Scan" else None


def _rounds(node: onnx.NodeProto, body: onnx.GraphProto, constant: ConstantOf) -> int | None:
    """Return the number of rounds that is stored, if no condition ends the loop before."""
    most = constant(node.input[0]) if node.input[0] else None
    if most is None or most.size != 1 or not _goes_on(node, body, constant):
        return None
    return max(int(most.ravel()[0]), 0)


def _goes_on(node: onnx.NodeProto, body: onnx.GraphProto, constant: ConstantOf) -> bool:
    """Say whether the condition is true before the first round and behind each."""
    start = node.input[1] if len(node.input) > 1 else ""
    if start and not _is_true(constant(start)):
        return False
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in body.initializer}
    producers = {name: n for n in body.node for name in n.output}
    name = body.output[0].name
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    return name == body.input[1].name or _is_true(stored.get(name))


def _is_true(value: npt.NDArray[np.generic] | None) -> bool:
    return value is not None and value.size == 1 and bool(value.ravel()[0])


def _slices(node: onnx.NodeProto, shape: Callable[[str], Shape | None]) -> int | None:
    """Return the length of the axis that a scan walks along."""
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    count = settings["num_scan_inputs"]
    axis = (settings.get("scan_input_axes") or [0])[0]
    scanned = shape(node.input[len(node.input) - count])
    return scanned[axis] if scanned is not None else None
