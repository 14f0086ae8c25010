"""What a kind of preprocessing reads of a file."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


class Reading(NamedTuple):
    """What a file holds for the network.

    Attributes:
        arrays: an array [N, ...] for each of the network's first inputs.
        parts: what each of the N samples is of the file; empty where they are only counted.
    """

    arrays: tuple[Array, ...]
    parts: tuple[str, ...] = ()
