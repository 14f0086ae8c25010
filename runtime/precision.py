"""What a precision is: one record each, the one that takes most off a network first."""

from typing import Literal

import msgspec

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant

# Where the numbers of a file come from: the float network as it is, a table of ranges found by
# calibration, ranges that the runtime finds while it runs, or weights quantized by themselves.
Source = Literal["network", "encodings", "running", "weights"]


class Precision(msgspec.Struct, frozen=True):
    """How a file stores weights and computes.

    Attributes:
        name: in manifests, names of artifacts and names of files.
        weight_bits: of a stored weight.
        activations: type that layers compute on.
        source: where its scales come from.
        tolerance: share of an output's largest value that a file may differ from its torch graph
            by; of integer outputs steps are counted instead.
        rounding: rounding of its floats over that of float32.
    """

    name: str
    weight_bits: int
    activations: Literal["float32", "float16", "bfloat16", "float8", "int16", "int8"]
    source: Source
    tolerance: float
    rounding: float = 1.0

    @property
    def is_float(self) -> bool:
        """Say whether nothing is quantized."""
        return self.source == "network"

    @property
    def has_steps(self) -> bool:
        """Say whether activations are integers whose steps are known when the file is made."""
        return self.source == "encodings" and self.activations in ("int8", "int16")

    @property
    def computes_in_integers(self) -> bool:
        """Say whether layers multiply integers."""
        return self.activations in ("int8", "int16")

    def __str__(self) -> str:
        """Return the name."""
        return self.name


INT8 = Precision("int8", 8, "int8", "encodings", 2e-2)
FP8 = Precision("fp8", 8, "float8", "encodings", 1e-1)
INT8_INT16 = Precision("int8_int16", 8, "int16", "encodings", 2e-2)
DYNAMIC_INT8 = Precision("dynamic_int8", 8, "int8", "running", 1e-1)
INT4_WEIGHTS = Precision("int4_weights", 4, "float32", "weights", 1e-3)
INT8_WEIGHTS = Precision("int8_weights", 8, "float32", "weights", 1e-3)
FLOAT16 = Precision("float16", 16, "float16", "network", 2e-2, rounding=2.0**13)
BFLOAT16 = Precision("bfloat16", 16, "bfloat16", "network", 1.6e-1, rounding=2.0**16)
FLOAT32 = Precision("float32", 32, "float32", "network", 1e-3)

PRECISIONS = {
    precision.name: precision
    for precision in (
        INT8,
        FP8,
        INT8_INT16,
        DYNAMIC_INT8,
        INT4_WEIGHTS,
        INT8_WEIGHTS,
        FLOAT16,
        BFLOAT16,
        FLOAT32,
    )
}


def precision_named(name: str) -> Precision:
    """Return a precision.

    Raises:
        BadInputError: there is none of that name.

    >>> precision_named("int8_int16").activations
    'int16'
    """
    if name in PRECISIONS:
        return PRECISIONS[name]
    raise BadInputError(f"unknown precision '{name}'{meant(name, PRECISIONS)}")
