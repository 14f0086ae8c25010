"""Where a file has its channels, if the network has them elsewhere."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Shape = tuple[int | None, ...]

# N samples, C channels; L is the length of a series, D, H and W are those of volumes and pictures.
Layout = Literal["NCL", "NLC", "NCHW", "NHWC", "NCDHW", "NDHWC"]
CHANNELS_FIRST: dict[int, Layout] = {3: "NCL", 4: "NCHW", 5: "NCDHW"}
CHANNELS_LAST: dict[int, Layout] = {3: "NLC", 4: "NHWC", 5: "NDHWC"}


def to_file(x: Array, layout: Layout) -> Array:
    """Return what the file takes of an array as the network takes it; a view.

    >>> to_file(np.zeros((1, 3, 8, 9)), "NHWC").shape
    (1, 8, 9, 3)
    """
    return np.moveaxis(x, 1, -1) if _is_last(layout) else np.moveaxis(x, -1, 1)


def to_network(y: Array, layout: Layout) -> Array:
    """Return a file's array as the network has it; a view.

    >>> to_network(np.zeros((1, 8, 9, 3)), "NHWC").shape
    (1, 3, 8, 9)
    """
    return np.moveaxis(y, -1, 1) if _is_last(layout) else np.moveaxis(y, 1, -1)


def network_shape(shape: Shape, layout: Layout) -> Shape:
    """Return the sizes of a file's tensor in the order of the network's axes.

    >>> network_shape((None, 8, 9, 3), "NHWC"), network_shape((None, 3, 8, 9), "NCHW")
    ((None, 3, 8, 9), (None, 8, 9, 3))
    """
    first, *rest = shape
    moved = [rest[-1], *rest[:-1]] if _is_last(layout) else [*rest[1:], rest[0]]
    return (first, *moved)


def _is_last(layout: Layout) -> bool:
    return layout.endswith("C")
