"""Write a network read from a QDQ file for another runtime: its ranges, that runtime's pairs."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedl.compress.convert.foreign import ForeignNetwork
from edgedl.compress.convert.grid_ends import (
    FREE,
    NOT_NEGATIVE,
    Ends,
    bounds_of,
    lost_ends,
    narrow,
)
from edgedl.compress.modelfile.onnx_graphs import names_read, rename_reads
from edgedl.compress.targets.target import Target
from edgedl.runtime.backend import Array

# Operators whose output is on the grid of their input.
MOVES = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity")
LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Requantized:
    """A file, and what of the original could not be carried over, one line each."""

    content: bytes
    notes: tuple[str, ...]


def requantize(network: ForeignNetwork, target: Target) -> Requantized:
    """Return a network as a target wants it: an ONNX file with that target's pairs.

    Weights that are symmetric int8 stay bit for bit. ONNX Runtime keeps every activation's grid,
    as uint8; TensorRT gets int8 around zero, with steps up to twice as wide for one-sided ranges,
    and pairs only at the inputs of convolutions, linear layers and residual adds. Where a value is
    clipped by nothing but its grid, and not by the new file's pairs, a ReLU or Clip does it.

    Args:
        network: from ``read_foreign``; stays as it is.
        target: whose runtime reads ONNX.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    notes = _Writer(model, network, target).write()
    onnx.checker.check_model(model)
    return Requantized(model.SerializeToString(), (*network.notes, *notes))


class _Writer:
    """Inserts pairs into a copy of the float network."""

    def __init__(self, model: onnx.ModelProto, network: ForeignNetwork, target: Target) -> None:
        self._network, self._target = network, target
        self._graph, self._weights = model.graph, network.weights
        self._every = target.pairs == "every_tensor"
        self._grids = dict(network.grids)
        for node in model.graph.node:
            if node.op_type in MOVES and node.input[0] in self._grids:
                self._grids.setdefault(node.output[0], self._grids[node.input[0]])
        self._pairs: dict[str, list[onnx.NodeProto]] = {}
        self._constants: dict[str, Array] = {}
        self._ends: dict[str, Ends] = {}
        self._note_readers()
        self._restore_ends()
        self._note_readers()

    def _note_readers(self) -> None:
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in self._graph.node:
            for name in dict.fromkeys(names_read(node)):
                self._users.setdefault(name, []).append(node)
        self._producers = {name: n for n in self._graph.node for name in n.output}

    def _restore_ends(self) -> None:
        """Clip where the file does by the ends of a grid, and this one would not (``lost_ends``).

        What is clipped by an operator of its own is not fused with an add any more, so the add may
        read another operand through a pair: it is looked again until nothing is lost.
        """
        while True:
            found = self._find_lost_ends()
            ends = {name: narrow(self._ends.get(name, FREE), e) for name, e in found.items()}
            if ends.items() <= self._ends.items():
                break
            self._ends |= ends
        nodes = []
        for node in self._graph.node:
            nodes.append(node)
            for index, value in enumerate(node.output):
                if value in self._ends:
                    node.output[index] = f"{value}_unclipped"
                    nodes.append(self._clip(value, self._ends[value]))
        self._rebuild(nodes)

    def _find_lost_ends(self) -> dict[str, Ends]:
        stored = {t.name: t for t in self._graph.initializer}
        bounds: dict[str, Ends] = {}
        lost: dict[str, Ends] = {}
        for node in self._graph.node:
            given = bounds_of(node, partial(self._read, node, bounds, stored))
            for value in node.output:
                ends = self._lost_ends(value, given)
                bounds[value] = narrow(given, ends or FREE)
                if ends is not None:
                    lost[value] = ends
        return lost

    def _read(
        self,
        node: onnx.NodeProto,
        bounds: dict[str, Ends],
        stored: dict[str, onnx.TensorProto],
        name: str,
    ) -> Ends:
        """Return between which ends a node gets what it reads."""
        if name in stored and stored[name].data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(stored[name])
            return float(values.min(initial=0.0)), float(values.max(initial=0.0))
        ends = bounds.get(name, FREE)
        paired = any(n.output[0] == node.output[0] for n in self._wanting(name))
        return narrow(ends, self._ends_of_pair(name)) if name in self._grids and paired else ends

    def _lost_ends(self, value: str, bounds: Ends) -> Ends | None:
        grid = self._network.grids.get(value)
        if grid is None or value in self._network.unrounded:
            # An operator that a quantizer drops has no readers that see what it read.
            return None
        kept = self._ends_of_pair(value) if self._is_paired(value) else FREE
        return lost_ends(grid, bounds, kept)

    def _is_paired(self, value: str) -> bool:
        """Say whether all readers get a value through its pair, or one behind them does as much."""
        if any(o.name == value for o in self._graph.output):
            return False
        paired = [n.output[0] for n in self._wanting(value)]
        others = [n for n in self._users.get(value, []) if n.output[0] not in paired]
        same = [
            n.op_type in MOVES
            and self._grids[n.output[0]] == self._grids[value]
            and self._is_paired(n.output[0])
            for n in others
        ]
        return all(same) and bool(paired or others)

    def _ends_of_pair(self, value: str) -> Ends:
        affine = self._grids[value].affine(self._target)
        lowest, highest = affine.qmin - affine.zero_point, affine.qmax - affine.zero_point
        return lowest * affine.scale, highest * affine.scale

    def _clip(self, value: str, ends: Ends) -> onnx.NodeProto:
        before = f"{value}_unclipped"
        if ends == NOT_NEGATIVE:
            return helper.make_node("Relu", [before], [value], f"{value}_relu")
        names = [f"{value}_lowest", f"{value}_highest"]
        self._constants.update(zip(names, np.array(ends, np.float32), strict=True))
        return helper.make_node("Clip", [before, *names], [value], f"{value}_clip")

    def write(self) -> list[str]:
        """Insert the pairs and return what stays float, one line for all of it."""
        nodes = list(self._graph.node)
        stays = sum(n.op_type in LAYERS and not self._is_integer(n) for n in nodes)
        plan = [(value, self._wanting(value)) for value in [*self._grids, *self._weights]]
        for value, users in plan:
            if users:
                self._insert(value)
                for node in users:
                    rename_reads(node, {value: f"{value}_dequantized"})
        first = [*(i.name for i in self._graph.input), *self._weights]
        ordered = [n for name in first for n in self._pairs.get(name, [])]
        for node in nodes:
            ordered.append(node)
            ordered += [n for name in node.output for n in self._pairs.get(name, [])]
        self._rebuild(ordered)
        if not stays:
            return []
        return [f"{stays} layers have no scale in the file for what they read: they stay float"]

    def _is_integer(self, node: onnx.NodeProto) -> bool:
        """Say whether a layer reads an activation on a grid and a stored weight."""
        known = {*self._grids, *self._weights}
        return node.op_type in LAYERS and {*node.input[:2]} <= known

    def _wanting(self, value: str) -> list[onnx.NodeProto]:
        """Return the users of a value that shall read it through a pair."""
        users = self._users.get(value, [])
        if self._every:
            return [n for n in users if n.op_type not in LAYERS or self._is_integer(n)]
        return [n for n in users if self._is_integer(n) or self._residual_operand(n) == value]

    def _residual_operand(self, node: onnx.NodeProto) -> str | None:
        """Return the operand of an add that is not the output of the layer it fuses with."""
        if node.op_type != "Add":
            return None
        fuses = [
            name in self._producers
            and name not in self._ends
            and self._producers[name].op_type in LAYERS
            and len(self._users[name]) == 1
            for name in node.input
        ]
        stored = [name in self._weights for name in node.input]
        if not any(fuses) or any(stored):
            return None
        return str(node.input[1] if fuses[0] else node.input[0])

    def _insert(self, value: str) -> None:
        weight = self._weights.get(value)
        if weight is None:
            affine = self._grids[value].affine(self._target)
            zero = np.array(affine.zero_point, affine.dtype)
            names = self._store(value, np.array(affine.scale, np.float32), zero)
            quantize = helper.make_node(
                "QuantizeLinear", [value, *names], [f"{value}_quantized"], f"{value}_quantize"
            )
            self._pairs[value] = [quantize, self._dequantize(value, names)]
            return
        names = self._store(value, weight.scales, np.zeros(weight.scales.shape, np.int8))
        self._constants[f"{value}_quantized"] = weight.integers
        self._pairs[value] = [self._dequantize(value, names, weight.axis)]

    def _store(self, value: str, scale: Array, zero: Array) -> tuple[str, str]:
        names = (f"{value}_scale", f"{value}_zero_point")
        self._constants.update(zip(names, (scale, zero), strict=True))
        return names

    def _dequantize(self, value: str, names: tuple[str, str], axis: int = 0) -> onnx.NodeProto:
        return helper.make_node(
            "DequantizeLinear",
            [f"{value}_quantized", *names],
            [f"{value}_dequantized"],
            f"{value}_dequantize",
            axis=axis,
        )

    def _rebuild(self, nodes: list[onnx.NodeProto]) -> None:
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in names_read(node)}
        kept = [
            t for t in self._graph.initializer if t.name in used and t.name not in self._constants
        ]
        kept += [
            numpy_helper.from_array(np.asarray(x), name) for name, x in self._constants.items()
        ]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
