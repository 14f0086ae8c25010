"""A stage turns one model state into the next."""

from dataclasses import dataclass
from typing import Protocol

from torch import fx

from edgedl.compress.quantize.encodings import Encodings
from edgedl.compress.subject import Subject
from edgedl.runtime.manifest import HistoryEntry


@dataclass(frozen=True)
class ModelState:
    """A network on its way through the recipe.

    Attributes:
        subject: what is being compressed, with its data.
        graph: canonical float graph.
        encodings: ranges of its tensors once a stage has quantized it.
        dynamic: whether the runtimes shall quantize it while it runs.
        history: the stages applied so far.
    """

    subject: Subject
    graph: fx.GraphModule
    encodings: Encodings | None = None
    dynamic: bool = False
    history: tuple[HistoryEntry, ...] = ()


class Stage(Protocol):
    """One technique with its settings."""

    def apply(self, state: ModelState) -> ModelState:
        """Return the next state; the given one stays as it is."""
        ...
