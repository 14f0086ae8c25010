"""What a network keeps from one call to the next."""

from typing import Protocol

import msgspec


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input that takes what an output gave in the call before, zeros in the first.

    Attributes:
        input: name of the network's input.
        output: name of its output, of the same shape.
        shape: of one sample, without the batch.
    """

    input: str
    output: str
    shape: tuple[int, ...]


class Stateful(Protocol):
    """A network of single steps that says what it keeps."""

    def state(self) -> tuple[State, ...]:
        """Return its states in the order of its last inputs and outputs."""
        ...
