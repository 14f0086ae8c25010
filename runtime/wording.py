"""Numbers and lists of names as sentences and tables say them."""

import difflib
import re
from collections.abc import Iterable

# How alike a name and a part of another must be; difflib takes 0.6 for whole names.
PART_CUTOFF = 0.75


def counted(number: float, noun: str) -> str:
    """Return how many there are of something whose plural ends in s.

    >>> counted(1, "sample"), counted(12000000, "sample"), counted(0.5, "point")
    ('1 sample', '12000000 samples', '0.5 points')
    """
    text = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{text} {noun}" if number == 1 else f"{text} {noun}s"


def points(value: float) -> str:
    """Return points of a score with their sign; what is not 0 does not look like it.

    >>> points(1.234), points(0.0), points(-0.00123), points(4.2e-8)
    ('+1.23', '+0.00', '-0.0012', '+4.2e-08')
    """
    return f"{value:+.2g}" if 0 < abs(value) < 0.005 else f"{value:+.2f}"


def about(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> about(12.3), about(150), about(7800)
    ('about 12 s', 'about 2.5 min', 'about 2.2 h')
    """
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.1f} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"


def reason(error: BaseException) -> str:
    r"""Return what an error says in one line; its class where it says nothing.

    >>> reason(ValueError("no\nsuch  file")), reason(MemoryError())
    ('no such file', 'MemoryError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def meant(name: str, known: Iterable[str]) -> str:
    """Return what follows "there is no X 'name'": the nearest name, and all known names.

    >>> meant("ort2", ["ort", "tflite"]), meant("gpu", ["ort", "tflite"])
    (", did you mean 'ort'? known: ort, tflite", '; known: ort, tflite')
    """
    names = list(known)
    hint = nearest(name, names)
    return f"{hint}{'' if hint else ';'} known: {', '.join(names)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" with the nearest of the names; "" where none is near.

    A name is near as a whole, or one of its parts between "-", "_" and "." is.

    >>> nearest("conv1.weight", ["module.conv1.weight", "module.conv1.bias"])
    ", did you mean 'module.conv1.weight'?"
    >>> nearest("lenet", ["resnet20-cifar10", "lenet5-fashion_mnist"])
    ", did you mean 'lenet5-fashion_mnist'?"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    if not near:
        # Of names with the same part, the first.
        parts: dict[str, str] = {}
        for whole in names:
            for part in re.split(r"[-_.]", whole):
                parts.setdefault(part, whole)
        near = [parts[part] for part in difflib.get_close_matches(name, parts, 1, PART_CUTOFF)]
    return f", did you mean '{near[0]}'?" if near else ""


def nearest_few(name: str, known: Iterable[str]) -> str:
    """Return what follows "there is no X 'name'" where there are too many names to list.

    >>> nearest_few("stem.con", ["stem.conv", "stem"])
    ", did you mean 'stem.conv'? the nearest names are stem.conv, stem"
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, 3, 0.0)
    return f"{nearest(name, names) or ':'} the nearest names are {', '.join(near)}" if near else ""
