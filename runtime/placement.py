"""Where a loaded file computes: its device, and the operators that something else computes."""

from collections import Counter
from dataclasses import dataclass

from edgedl.runtime.wording import counted

# Names of operators that a line shows.
SHOWN = 3


@dataclass(frozen=True)
class Fallback:
    """Operators of a file that what was asked for does not compute.

    Attributes:
        by: what computes them instead.
        operators: type and name of each; empty where it is not known.
        other_device: whether that is another device, which data are copied to.
    """

    by: str
    operators: tuple[tuple[str, str], ...]
    other_device: bool

    def __str__(self) -> str:
        """Count them by type, and name the first ones.

        >>> print(Fallback("the CPU", (("Gather", "a"), ("Gather", "b"), ("Loop", "")), True))
        3 operators are computed by the CPU: 2 Gather, 1 Loop (a, b)
        """
        count = len(self.operators)
        types = Counter(kind for kind, _ in self.operators if kind)
        which = ", ".join(f"{n} {kind}" for kind, n in types.most_common())
        names = [name for _, name in self.operators if name]
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        verb = "is" if count == 1 else "are"
        named = f" ({shown})" if shown else ""
        of_types = f": {which}" if which else ""
        return f"{counted(count, 'operator')} {verb} computed by {self.by}{of_types}{named}"


@dataclass(frozen=True)
class Placement:
    """Where a loaded file computes.

    Attributes:
        device: that computes it, as its runtime says.
        fallbacks: what something else computes.
    """

    device: str
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def elsewhere(self) -> tuple[Fallback, ...]:
        """What another device computes."""
        return tuple(fallback for fallback in self.fallbacks if fallback.other_device)
