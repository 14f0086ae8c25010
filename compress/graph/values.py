"""What tracing recorded of the values of a graph: tensors that have a shape and a type, no data."""

from typing import Any

import torch
from torch import Tensor, fx


def value_of(node: fx.Node) -> Any:
    """Return the tensor without data that stands for a node's value; None where none is known.

    An operator with several results has a list of them.
    """
    return node.meta.get("val")


def shape_of(node: fx.Node) -> torch.Size:
    """Return the shape of a node's value, whose free sizes are symbols.

    Raises:
        TypeError: the value is no tensor, or none is known.
    """
    value = value_of(node)
    if not isinstance(value, Tensor):
        raise TypeError(f"the value of '{node.name}' has no shape")
    return value.shape


def is_floating(node: fx.Node) -> bool:
    """Say whether a node's value is a tensor of floats."""
    value = value_of(node)
    return isinstance(value, Tensor) and value.is_floating_point()


def record_value(node: fx.Node, value: Any) -> None:
    """Let a tensor without data stand for a node's value."""
    node.meta["val"] = value
