"""What a module returns, as a flat row of tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from edgedl.runtime.errors import BadInputError


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a module's output in order, integers and booleans as float32.

    None is left out.

    Args:
        outputs: a tensor, or tuples, lists, mappings and dataclasses of such, in any depth.

    Raises:
        BadInputError: something else is in it, or no tensor at all.
    """
    return tuple(tensor for _, tensor in named_outputs(outputs))


def named_outputs(outputs: Any) -> list[tuple[str, Tensor]]:
    """Return the tensors of a module's output in order, each with its key or field, "" for none.

    >>> [name for name, _ in named_outputs({"logits": torch.zeros(1), "loss": None})]
    ['logits']

    Raises:
        BadInputError: something else is in it, or no tensor at all.
    """
    found = list(_walk("", "result", outputs))
    if not found:
        raise BadInputError("forward returns no tensor: it must return at least one")
    return found


def _walk(name: str, path: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a part; ``path`` is where it is in the result, for errors."""
    if isinstance(value, Tensor):
        numbers = value.is_floating_point() or value.is_complex()
        yield name, value if numbers else value.float()
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _walk(_joined(name, key), f"{path}[{key!r}]", part)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            part = getattr(value, each.name)
            yield from _walk(_joined(name, each.name), f"{path}.{each.name}", part)
    elif isinstance(value, tuple | list):
        keys = getattr(value, "_fields", ("",) * len(value))
        for index, (key, part) in enumerate(zip(keys, value, strict=True)):
            yield from _walk(_joined(name, key), f"{path}[{index}]", part)
    elif value is not None:
        raise BadInputError(
            f"forward's {path} is a {type(value).__name__}, no tensor: return tensors alone, in a "
            "tuple, a dict or a dataclass"
        )


def _joined(outer: str, key: object) -> str:
    return f"{outer}_{key}" if outer and key else outer or str(key)
