"""An ONNX graph as a torch module: its nodes one after the other, its weights as parameters."""

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgedl.compress.adapters.onnx.batch_axis import PROBE, batch_axis
from edgedl.compress.adapters.onnx.node import Node
from edgedl.compress.adapters.onnx.operators.table import OPERATORS
from edgedl.compress.adapters.onnx.values import (
    Constant,
    NotImportedError,
    Sizes,
    Value,
    constant_of,
    is_known,
    tensor_of,
)
from edgedl.compress.errors import first_line
from edgedl.runtime.errors import BadInputError

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
             "MatMulInteger", "DynamicQuantizeLinear")  # fmt: skip


class OnnxNetwork(nn.Module):
    """What a file computes, float32, for any batch size.

    The arguments of ``forward`` and the keys of what it returns have the names of the file, as far
    as Python allows them. Floats that the file stores are parameters of their names; what the
    file computes of stored values alone was computed once.
    """

    def __init__(self, model: onnx.ModelProto, free_batch: bool = True) -> None:
        """Read the nodes and weights of a model without functions and with all weights inside.

        Args:
            model: float.
            free_batch: whether a model of a batch of one shall take any.

        Raises:
            NotImportedError: it has a node that is not known here.
        """
        super().__init__()
        graph = model.graph
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
        stored = {t.name for t in graph.initializer}
        self.input_names = tuple(i.name for i in graph.input if i.name not in stored)
        self.output_names = tuple(o.name for o in graph.output)
        self._stored: dict[str, tuple[str, Any]] = {}
        known: dict[str, Value] = {}
        for tensor in graph.initializer:
            known[tensor.name] = constant_of(np.array(numpy_helper.to_array(tensor)))
        self._nodes: list[Node] = []
        for node in _nodes(graph, opsets):
            self._take(node, known)
        # Torch keeps running means and variances apart from what it trains.
        self._statistics = {
            name
            for n in self._nodes
            if n.operator == "BatchNormalization"
            for name in n.inputs[3:5]
        }
        used = {n for node in self._nodes for n in node.inputs} | set(self.output_names)
        for name, value in known.items():
            if name in used:
                self._store(name, value)
        if free_batch:
            self._free_batch(graph)
        self._name_arguments()
        self.eval()

    def run(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Map the file's inputs, each [N, ...], to its outputs by name."""
        values = self._values(inputs)
        for name in self.output_names:
            if name not in values:
                raise NotImportedError(f"output '{name}' is not computed")
        keys = python_names(self.output_names)
        each = zip(keys, self.output_names, strict=True)
        return {key: tensor_of(values[name]) for key, name in each}

    def values_of(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return every value that a node gives as a tensor, by its name, in the nodes' order."""
        values = self._values(inputs)
        names = [name for node in self._nodes for name in node.outputs if name]
        return {n: v for n in names if isinstance(v := values.get(n), Tensor)}

    def _values(self, inputs: Sequence[Tensor]) -> dict[str, Value]:
        values: dict[str, Value] = dict(zip(self.input_names, inputs, strict=True))
        for name in self._stored:
            values[name] = self._constant(name)
        for node in self._nodes:
            lacking = next((name for name in node.inputs if name and name not in values), None)
            if lacking is not None:
                raise NotImportedError(f"{_where(node)} reads '{lacking}', which is not computed")
            given = compute(node, [values[name] if name else None for name in node.inputs])
            for name, value in zip(node.outputs, given, strict=False):
                if name and value is not None:
                    values[name] = value
        return values

    def node_of(self, value: str) -> Node:
        """Return the node that gives a value."""
        return next(node for node in self._nodes if value in node.outputs)

    def _take(self, node: Node, known: dict[str, Value]) -> None:
        """Compute a node of stored values alone now, keep any other for later."""
        given = [known.get(name) if name else None for name in node.inputs]
        if all(name in known or not name for name in node.inputs) and all(map(is_known, given)):
            with torch.no_grad():
                found = compute(node, given)
            for name, value in zip(node.outputs, found, strict=False):
                if name and value is not None:
                    known[name] = value if isinstance(value, Sizes) else _folded(value)
            return
        self._nodes.append(node)

    def _store(self, name: str, value: Value) -> None:
        """Keep a stored value: floats as a parameter; single numbers and others as a buffer."""
        if isinstance(value, Sizes):
            self._stored[name] = ("", value)
            return
        constant = value if isinstance(value, Constant) else _folded(value)
        attribute = _attribute(name, self)
        tensor = constant.tensor
        trained = tensor.is_floating_point() and tensor.numel() > 1
        if trained and name not in self._statistics:
            self.register_parameter(attribute, nn.Parameter(tensor))
        else:
            self.register_buffer(attribute, tensor)
        self._stored[name] = (attribute, constant.array)

    def _constant(self, name: str) -> Value:
        attribute, kept = self._stored[name]
        if not attribute:
            sizes: Sizes = kept
            return sizes
        return Constant(getattr(self, attribute), kept)

    def _free_batch(self, graph: onnx.GraphProto) -> None:
        """Find where a file that was exported for a batch of one says 1 and means the batch.

        A batch of another size shows it: what has that size in front is a batch.
        """
        given = {i.name: i.type.tensor_type for i in graph.input if i.name in self.input_names}
        shapes = {n: [d.dim_value for d in t.shape.dim] for n, t in given.items()}
        if not shapes or any(not shape or shape[0] != 1 for shape in shapes.values()):
            return
        values: dict[str, Value] = {name: self._constant(name) for name in self._stored}
        for name, shape in shapes.items():
            kind = torch.float32 if given[name].elem_type in _FLOATS else torch.int64
            values[name] = torch.zeros(PROBE, *(n or 1 for n in shape[1:]), dtype=kind)
        for place, node in enumerate(self._nodes):
            inputs = [values.get(name) if name else None for name in node.inputs]
            self._nodes[place] = node = replace(node, batch_axis=batch_axis(node, inputs))
            try:
                with torch.no_grad():
                    found = compute(node, inputs)
            except NotImportedError as error:
                raise NotImportedError(
                    f"with another batch than the 1 that the file is for, {error}"
                ) from None
            for name, value in zip(node.outputs, found, strict=False):
                if name and value is not None:
                    values[name] = value

    def _name_arguments(self) -> None:
        """Give ``forward`` arguments of the file's names: what is traced and told is named so.

        They belong to a class of this network's own, so that copies have them, too.
        """
        names = ", ".join(python_names(self.input_names))
        made: dict[str, Any] = {}
        # torch.export binds arguments by their names, so it has to be a function that has them.
        exec(f"def forward(self, {names}): return self.run({names})", made)
        self.__class__ = type("OnnxNetwork", (OnnxNetwork,), {"forward": made["forward"]})


def compute(node: Node, inputs: Sequence[Value | None]) -> tuple[Value | None, ...]:
    """Return what a node gives.

    Raises:
        NotImportedError: it is not computed here; the message names the node.
    """
    try:
        found = OPERATORS[node.operator](node, *inputs)
    except NotImportedError as error:
        raise NotImportedError(f"{_where(node)}: {error}") from None
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise NotImportedError(f"{_where(node)} cannot be computed: {first_line(error)}") from error
    return found if type(found) in (tuple, list) else (found,)


def _where(node: Node) -> str:
    return f"node '{node.name}' ({node.operator}, operator set {node.opset})"


def _nodes(graph: onnx.GraphProto, opsets: Mapping[str, int]) -> list[Node]:
    """Return the nodes.

    Raises:
        NotImportedError: one is not known here.
    """
    found: list[Node] = []
    for proto in graph.node:
        node = Node.of(proto, opsets)
        if proto.op_type in QUANTIZED:
            raise NotImportedError(
                f"{_where(node)}: the file is quantized; 'edgedl convert' carries it to other "
                "runtimes, compress takes the float file that it was made of"
            )
        if node.operator not in OPERATORS:
            raise NotImportedError(
                f"{_where(node)} is not known: rewrite that part, or give the torch module"
            )
        found.append(node)
    return found


def _folded(value: Value) -> Constant:
    tensor = tensor_of(value).detach().clone()
    found = constant_of(tensor.numpy())
    return Constant(tensor, found.array)


def _attribute(name: str, module: nn.Module) -> str:
    """Return a name of the module that is free and near to the file's."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "value"
    plain = f"w_{plain}" if plain[0].isdigit() or hasattr(nn.Module, plain) else plain
    number, found = 1, plain
    while hasattr(module, found):
        number += 1
        found = f"{plain}_{number}"
    return found


def python_names(names: Sequence[str]) -> list[str]:
    """Return names of arguments, each once, that are near to the file's.

    >>> python_names(["input.1", "input_1", "1", "class"])
    ['input_1', 'input_1_2', 'x_1', 'class_']
    """
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "x"
        plain = f"x_{plain}" if plain[0].isdigit() else plain
        plain = f"{plain}_" if keyword.iskeyword(plain) or plain == "self" else plain
        number, free = 1, plain
        while free in found:
            number += 1
            free = f"{plain}_{number}"
        found.append(free)
    return found


def check_inputs(model: onnx.ModelProto) -> None:
    """Refuse inputs that cannot be fed.

    Raises:
        BadInputError: one is of a type, or has no axis for a batch.
    """
    stored = {t.name for t in model.graph.initializer}
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64,
             onnx.TensorProto.INT32}  # fmt: skip
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type not in kinds:
            name = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise BadInputError(
                f"input '{value.name}' is {name}: it can be FLOAT, FLOAT16, INT64 or INT32"
            )
        if not tensor.shape.dim:
            raise BadInputError(f"input '{value.name}' has no axis: its first must be the batch")
