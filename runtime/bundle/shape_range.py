"""The sizes that an engine is built for, where a file leaves them free."""

import msgspec

from edgedl.runtime.errors import BadInputError

Shape = tuple[int, ...]


class ShapeRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input's part of an optimization profile.

    Attributes:
        input: its name in the file.
        min, opt, max: the smallest shape, the one that is made fast, and the largest.
    """

    input: str
    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        """Refuse sizes that are not in order.

        Raises:
            BadInputError: the shapes differ in length, or a size is below 1 or out of order.
        """
        sizes = list(zip(self.min, self.opt, self.max, strict=False))
        same_rank = len(self.min) == len(self.opt) == len(self.max)
        if not same_rank or any(not 1 <= lo <= best <= hi for lo, best, hi in sizes):
            raise BadInputError(
                f"the sizes of input '{self.input}' must be 1 <= min <= opt <= max, got "
                f"{list(self.min)}, {list(self.opt)}, {list(self.max)}"
            )
