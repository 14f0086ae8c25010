"""Write what a QDQ file does with integers as what it does with floats.

edgedl's own files for ONNX Runtime clip integers, and scale a grid by its step alone
(``quantize/integer_forms.py``).
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedl.runtime.backend import Array

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# A factor this near to one is a scale's own rounding.
_NO_FACTOR = 1e-6


def write_in_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in which every operator between pairs computes floats.

    ``Clip`` of integers becomes one of what they stand for, between pairs of its own; a dequantize
    with another scale than the quantize before it multiplies by the factor between the two.
    """
    written = onnx.ModelProto()
    written.CopyFrom(model)
    _Writer(written.graph).write()
    return written


class _Writer:
    """Appends the nodes of a graph anew, with others among them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        # What was appended, by what it gives.
        self._made: dict[str, onnx.NodeProto] = {}

    def write(self) -> None:
        for node in [onnx.NodeProto.FromString(n.SerializeToString()) for n in self._graph.node]:
            before = self._made.get(node.input[0]) if node.input else None
            grid = list(before.input[1:]) if before and before.op_type == _QUANTIZE else []
            if node.op_type == "Clip" and len(grid) == 2:
                self._clip(node, grid)
            elif node.op_type == _DEQUANTIZE and grid and self._differ(grid[0], node.input[1]):
                self._scale(node, grid)
            else:
                self._append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _append(self, node: onnx.NodeProto) -> str:
        self._nodes.append(node)
        self._made.update(dict.fromkeys(node.output, node))
        return str(node.output[0])

    def _call(self, kind: str, inputs: list[str], name: str) -> str:
        return self._append(helper.make_node(kind, inputs, [name], name))

    def _store(self, name: str, value: Array) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, np.float32), name)
        self._graph.initializer.append(tensor)
        return name

    def _clip(self, node: onnx.NodeProto, grid: list[str]) -> None:
        name, (scale, zero) = node.output[0], (self._constants[n] for n in grid)
        ends = []
        for position, end in enumerate(node.input[1:]):
            real = (self._constants[end].astype(np.float64) - zero) * scale if end else None
            ends.append("" if real is None else self._store(f"{name}_end_{position}", real))
        read = self._call(_DEQUANTIZE, [node.input[0], *grid], f"{name}_read")
        clipped = self._call("Clip", [read, *ends], f"{name}_clipped")
        self._call(_QUANTIZE, [clipped, *grid], name)

    def _scale(self, node: onnx.NodeProto, grid: list[str]) -> None:
        name, after = node.output[0], list(node.input[1:])
        ratio = self._constants[after[0]] / self._constants[grid[0]]
        factor = self._store(f"{name}_factor", ratio.reshape(()))
        read = self._call(_DEQUANTIZE, [node.input[0], *grid], f"{name}_read")
        scaled = self._call("Mul", [read, factor], f"{name}_scaled")
        integers = self._call(_QUANTIZE, [scaled, *after], f"{name}_integers")
        self._call(_DEQUANTIZE, [integers, *after], name)

    def _differ(self, before: str, after: str) -> bool:
        """Say whether two stored scales of a whole tensor are not the same."""
        if not {before, after} <= self._constants.keys():
            return False
        scale, other = self._constants[before], self._constants[after]
        differ = not np.allclose(scale, other, rtol=_NO_FACTOR, atol=0.0)
        return scale.size == other.size == 1 and differ
