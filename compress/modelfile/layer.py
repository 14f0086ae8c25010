"""One layer of a model file, whatever its format."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgedl.runtime.wording import counted


@dataclass(frozen=True)
class Grid:
    """How integers stand for real values.

    Attributes:
        dtype: of the integers.
        scales: step size, one per tensor, one per channel, or one per block of a channel.
        zero_points: as many.
        block_size: consecutive values of a channel that share a step; None where all do.
    """

    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    block_size: int | None = None

    def describe(self) -> str:
        """Return it in a few words."""
        if len(self.scales) == 1:
            return f"{self.dtype} {self.scales[0]:.6g} @ {self.zero_points[0]}"
        low, high = min(self.scales), max(self.scales)
        each = "channel" if self.block_size is None else f"block of {self.block_size}"
        return f"{self.dtype} per {each} ({len(self.scales)}), {low:.3g} to {high:.3g}"


@dataclass(frozen=True)
class FileLayer:
    """An operator of a model file.

    Attributes:
        name: of the operator, or of its output where operators have none.
        operator: kind, as the format calls it.
        shape: of its output, None where free; () where it has none.
        inputs: dtype of what it computes with: that of the integers where it reads integers.
        output: grid of its output; None for floats.
        weight: grid of its weight; None for floats or no weight.
        weight_bytes: bytes of all its constants in the file.
        macs: multiply-accumulates for a batch of one; 0 for operators without products; None where
            they are unknown: they depend on a size that the file leaves free, or on how often a
            loop runs, or the operator is none that edgedl knows.
        inside: the operator whose branch or body it is in; "" for the file's own graph. What it
            multiplies is counted in that operator, too.
    """

    name: str
    operator: str
    shape: tuple[int | None, ...]
    inputs: str
    output: Grid | None
    weight: Grid | None
    weight_bytes: int
    macs: int | None
    inside: str = ""


@dataclass(frozen=True)
class Work:
    """The multiply-accumulates of some layers.

    Attributes:
        macs: of the layers where they are known.
        unknown: how many layers there are of which they are not.
    """

    macs: int
    unknown: int

    @property
    def total(self) -> int | None:
        """All multiply-accumulates; None where they are not known."""
        return None if self.unknown else self.macs

    def repeated(self, times: int | None) -> int | None:
        """Return the multiply-accumulates of so many runs; None where they are not known.

        >>> Work(128, 0).repeated(3), Work(128, 0).repeated(None), Work(0, 0).repeated(None)
        (384, None, 0)
        """
        if self.total == 0 or times == 0:
            return 0
        return None if self.total is None or times is None else self.total * times

    def describe(self) -> str:
        """Return it in a few words.

        >>> Work(128, 1).describe()
        '128 MACs, without those of 1 layer where they are unknown'
        """
        if not self.unknown:
            return f"{self.macs} MACs"
        layers = counted(self.unknown, "layer")
        return f"{self.macs} MACs, without those of {layers} where they are unknown"


def work_of(layers: Iterable[FileLayer]) -> Work:
    """Return what one run of a graph multiplies; what stands inside other layers counts there."""
    own = [layer.macs for layer in layers if not layer.inside]
    return Work(sum(macs for macs in own if macs is not None), own.count(None))
