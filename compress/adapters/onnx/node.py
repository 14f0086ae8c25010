"""A node of an ONNX graph with its attributes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgedl.compress.adapters.onnx.values import (
    NotImportedError,
    Value,
    constant_of,
    sizes_of,
)


@dataclass(frozen=True)
class Node:
    """One operator of the file.

    Attributes:
        name: in messages.
        operator: with its domain where it is not ONNX's own.
        attributes: by name.
        inputs: names; empty for one that is left out.
        outputs: names; empty for one that nobody wants.
        opset: version of its domain.
        batch_axis: where the file has a number and means the batch, times that number: it was
            exported for a batch of one. None where it does not.
    """

    name: str
    operator: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    batch_axis: int | None = None

    @classmethod
    def of(cls, node: onnx.NodeProto, opsets: Mapping[str, int]) -> "Node":
        """Read a node of a file."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        operator = f"{domain}.{node.op_type}" if domain else node.op_type
        given = next((name for name in node.output if name), "")
        return cls(
            node.name or given,
            operator,
            {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute},
            tuple(node.input),
            tuple(node.output),
            opsets.get(domain, 1),
        )

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or what stands for it where it is left out."""
        return self.attributes.get(name, default)

    def only(self, name: str, allowed: Any) -> None:
        """Refuse an attribute of another value than the one that is computed here.

        Raises:
            NotImportedError: it has another.
        """
        found = self.get(name, allowed)
        if found != allowed:
            raise NotImportedError(f"its attribute {name} is {found}, only {allowed} is known")

    def axes(self, inputs: Sequence[Value | None], place: int) -> tuple[int, ...] | None:
        """Return the axes that are an attribute in older files and an input in newer ones."""
        if "axes" in self.attributes:
            return tuple(self.attributes["axes"])
        given = inputs[place] if len(inputs) > place else None
        return None if given is None else tuple(sizes_of(given, "axes"))


def _plain(value: Any) -> Any:
    """Return an attribute as Python has it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return constant_of(np.array(numpy_helper.to_array(value)))
    if isinstance(value, list | tuple) and value and isinstance(value[0], bytes):
        return [part.decode(errors="replace") for part in value]
    return list(value) if isinstance(value, tuple) else value
