"""A network together with the table that quantizes it."""

from dataclasses import dataclass

from torch import fx

from edgedl.compress.encodings.encodings import Encodings


@dataclass(frozen=True)
class QuantizedNetwork:
    """What goes int8.

    Attributes:
        graph: canonical float graph; its weights differ from the float network's where a stage
            made up for what rounding does.
        encodings: ranges of its tensors.
    """

    graph: fx.GraphModule
    encodings: Encodings
