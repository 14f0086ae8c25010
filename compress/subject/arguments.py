"""The arguments of a module's ``forward``: what tells inputs from labels in a batch."""

import inspect
from dataclasses import dataclass

from torch import nn

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class ForwardArguments:
    """What ``forward`` takes by position.

    Attributes:
        names: of its arguments, in order.
        required: how many of them have no default.
        any_number: whether it takes ``*args``.
    """

    names: tuple[str, ...]
    required: int
    any_number: bool

    @classmethod
    def of(cls, module: nn.Module) -> "ForwardArguments":
        """Read the signature of a module's ``forward``."""
        parameters = inspect.signature(module.forward).parameters.values()
        taken = [p for p in parameters if p.kind in POSITIONAL]
        return cls(
            tuple(p.name for p in taken),
            sum(p.default is inspect.Parameter.empty for p in taken),
            any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters),
        )

    def has_labels(self, count: int) -> bool | None:
        """Say whether the last of ``count`` arrays of a batch are labels; None if neither fits.

        ``forward(x, mask=None)`` takes of two arrays the first, the second are labels: a mask that
        is meant is given as ``((x, mask), labels)``.

        >>> ForwardArguments(("x", "mask"), 1, False).has_labels(2)
        True
        """
        least = max(1, self.required)
        if count == least:
            return False
        if count == least + 1 or self.any_number or count == len(self.names) + 1:
            return True
        return False if count <= len(self.names) else None

    def __str__(self) -> str:
        """Return the arguments as an error names them."""
        return f"forward({', '.join([*self.names, *(['*args'] if self.any_number else [])])})"
