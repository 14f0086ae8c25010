"""What a kind of preprocessing reads of a file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError

Array = npt.NDArray[np.generic]


class Reading(NamedTuple):
    """What a file holds for the network.

    Attributes:
        arrays: an array [N, ...] for each of the network's first inputs.
        parts: what each of the N samples is of the file; empty where they are only counted.
    """

    arrays: tuple[Array, ...]
    parts: tuple[str, ...] = ()


def read_text(path: Path, longest: int) -> str:
    """Return the text of a file.

    Args:
        path: in UTF-8, with or without a byte order mark.
        longest: that is read, in bytes.

    Raises:
        BadInputError: it is longer, or no text in UTF-8.
    """
    try:
        if path.stat().st_size > longest:
            raise BadInputError(f"{path} has more than {longest // 10**6} MB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} is not a readable text file ({error})") from error
