"""One layer of a model file, whatever its format."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """How integers stand for real values.

    Attributes:
        dtype: of the integers.
        scales: step size, one per tensor or one per channel.
        zero_points: as many.
    """

    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]

    def describe(self) -> str:
        """Return it in a few words."""
        if len(self.scales) == 1:
            return f"{self.dtype} {self.scales[0]:.6g} @ {self.zero_points[0]}"
        low, high = min(self.scales), max(self.scales)
        return f"{self.dtype} per channel ({len(self.scales)}), {low:.3g} to {high:.3g}"


@dataclass(frozen=True)
class FileLayer:
    """An operator of a model file.

    Attributes:
        name: of the operator, or of its output where operators have none.
        operator: kind, as the format calls it.
        shape: of its output, None where free.
        inputs: dtype of what it computes with: that of the integers where it reads integers.
        output: grid of its output; None for floats.
        weight: grid of its weight; None for floats or no weight.
        weight_bytes: bytes of all its constants in the file.
        macs: multiply-accumulates for a batch of one; 0 for other operators.
    """

    name: str
    operator: str
    shape: tuple[int | None, ...]
    inputs: str
    output: Grid | None
    weight: Grid | None
    weight_bytes: int
    macs: int
