"""Write a network read from a QDQ file for another runtime: its ranges, that runtime's pairs."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedl.compress.export.foreign import ForeignNetwork
from edgedl.compress.target import Target, describe_target
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
    and pairs only at the inputs of convolutions, linear layers and residual adds.

    Args:
        network: from ``read_foreign``; stays as it is.
        target: "ort" or "tensorrt", or a variant of theirs.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    notes = _Writer(model, network, target).write()
    onnx.checker.check_model(model)
    return Requantized(model.SerializeToString(), (*network.notes, *notes))


class _Writer:
    """Inserts pairs into a copy of the float network."""

    def __init__(self, model: onnx.ModelProto, network: ForeignNetwork, target: Target) -> None:
        self._graph, self._weights, self._target = model.graph, network.weights, target
        self._every = describe_target(target).pairs == "every_tensor"
        self._grids = dict(network.grids)
        for node in model.graph.node:
            if node.op_type in MOVES and node.input[0] in self._grids:
                self._grids.setdefault(node.output[0], self._grids[node.input[0]])
        self._pairs: dict[str, list[onnx.NodeProto]] = {}
        self._constants: dict[str, Array] = {}
        if describe_target(target).symmetric:
            self._restore_activations()
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._users.setdefault(name, []).append(node)
        self._producers = {name: n for n in model.graph.node for name in n.output}

    def _restore_activations(self) -> None:
        """Put back the ReLU that a quantizer dropped because its unsigned grid ends at zero.

        Grids around zero do not end there.
        """
        nodes = []
        for node in self._graph.node:
            nodes.append(node)
            value = node.output[0]
            grid = self._grids.get(value)
            if grid is not None and grid.zero_point == 0 and node.op_type in (*LAYERS, "Add"):
                node.output[0] = f"{value}_signed"
                relu = helper.make_node("Relu", [node.output[0]], [value], f"{value}_relu")
                nodes.append(relu)
        self._rebuild(nodes)

    def write(self) -> list[str]:
        """Insert the pairs and return what stays float, one line for all of it."""
        nodes = list(self._graph.node)
        stays = sum(n.op_type in LAYERS and not self._is_integer(n) for n in nodes)
        plan = [(value, self._wanting(value)) for value in [*self._grids, *self._weights]]
        for value, users in plan:
            if users:
                self._insert(value)
                for node in users:
                    _redirect(node, value, f"{value}_dequantized")
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
        used = {name for node in nodes for name in node.input}
        kept = [t for t in self._graph.initializer if t.name in used]
        kept += [numpy_helper.from_array(x, name) for name, x in self._constants.items()]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)


def _redirect(node: onnx.NodeProto, name: str, new: str) -> None:
    for index, given in enumerate(node.input):
        if given == name:
            node.input[index] = new
