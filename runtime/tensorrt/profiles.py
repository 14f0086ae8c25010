"""Optimization profiles: the smallest, the usual and the largest size of every free axis."""

from collections.abc import Sequence
from typing import NamedTuple

from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.bundle.shape_range import Shape, ShapeRange
from edgedl.runtime.errors import BadInputError


class Sizes(NamedTuple):
    """Sizes of a free axis.

    Attributes:
        min, opt, max: the smallest, the one that is made fast, and the largest.
    """

    min: int
    opt: int
    max: int

    @classmethod
    def read(cls, text: str) -> "Sizes":
        """Return what "1:8:32" means; one number stands for all three.

        Raises:
            BadInputError: it is something else.

        >>> Sizes.read("1:8:32"), Sizes.read("4")
        (Sizes(min=1, opt=8, max=32), Sizes(min=4, opt=4, max=4))
        """
        parts = text.split(":")
        if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
            raise BadInputError(f"sizes are MIN:OPT:MAX or one number, got '{text}'")
        sizes = cls(*([int(part) for part in parts] * (3 // len(parts))))
        if not 1 <= sizes.min <= sizes.opt <= sizes.max:
            raise BadInputError(f"sizes must be 1 <= MIN <= OPT <= MAX, got '{text}'")
        return sizes


# Where nobody says anything else.
BATCH = Sizes(1, 4, 16)
LENGTH = Sizes(1, 128, 512)


def profile(
    inputs: Sequence[TensorSpec], batch: Sizes = BATCH, length: Sizes = LENGTH
) -> tuple[ShapeRange, ...]:
    """Return the profile of a file; empty where it leaves no size free.

    Args:
        inputs: of the file.
        batch: sizes of the first axis.
        length: sizes of every other free axis.

    >>> (x,) = profile([TensorSpec("x", (None, 3), "float32")])
    >>> x.min, x.opt, x.max
    ((1, 3), (4, 3), (16, 3))
    """
    if all(None not in spec.shape for spec in inputs):
        return ()
    return tuple(
        ShapeRange(
            spec.name, *(_shape(spec, batch[i], length[i]) for i in range(len(Sizes._fields)))
        )
        for spec in inputs
    )


def corners(ranges: Sequence[ShapeRange]) -> list[dict[str, Shape]]:
    """Return the smallest, the usual and the largest shapes of all inputs, by their names.

    A file without free sizes has one corner, which says nothing.
    """
    if not ranges:
        return [{}]
    return [{r.input: getattr(r, corner) for r in ranges} for corner in Sizes._fields]


def _shape(spec: TensorSpec, batch: int, length: int) -> Shape:
    return tuple(
        (length if axis else batch) if size is None else size
        for axis, size in enumerate(spec.shape)
    )
