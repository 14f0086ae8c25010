"""Some integers of every quantized tensor, and what they must be: the certificate, replayed.

The golden vectors say that a runtime computes something else. These say from which layer on. They
need no torch and no data: the inputs are the golden ones, the integers those of the torch graph.
"""

import io

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.array_file import load_archive
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import IntegrityError

LAYER_VECTORS = "layers.npz"
MAX_POSITIONS = 256

Array = npt.NDArray[np.generic]

_GOLDEN_RATIO = (5**0.5 - 1) / 2


def positions(size: int, count: int = MAX_POSITIONS) -> npt.NDArray[np.int64]:
    """Return ``count`` places of a flat tensor, spread evenly and in step with none of its axes.

    Source: Weyl's equidistribution theorem; multiples of the golden ratio are the most even.

    >>> positions(3).tolist()
    [0, 1, 2]
    """
    if size <= count:
        return np.arange(size)
    return np.array((np.arange(1, count + 1) * _GOLDEN_RATIO % 1.0) * size, np.int64)


def encode_layer_vectors(expected: dict[str, Array]) -> bytes:
    """Return the content of ``layers.npz``.

    Args:
        expected: artifact name -> integers [layers, samples, K]: for every layer of its
            certificate those at the ``positions`` of the file's tensor, zeros behind them where
            the tensor has fewer than K.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **expected)
    return buffer.getvalue()


def read_layer_vectors(
    bundle: Bundle, artifact: Artifact, shape: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """Return the integers of an artifact's layers, int32 [layers, samples, K].

    Args:
        bundle: that holds them.
        artifact: whose layers.
        shape: layers and samples.

    Raises:
        IntegrityError: the file is damaged or incomplete.
    """
    content = bundle.read(LAYER_VECTORS)
    try:
        found = load_archive(content)[artifact.name]
    except Exception as error:
        # numpy and zipfile raise many classes here; the sha256 holds, so it was made wrong.
        raise IntegrityError(f"{LAYER_VECTORS} has no integers of {artifact.name}") from error
    if found.dtype.kind not in "iu" or found.ndim != 3 or found.shape[:2] != shape:
        raise IntegrityError(f"{LAYER_VECTORS} does not fit the layers of {artifact.name}")
    integers: npt.NDArray[np.int32] = found.astype(np.int32)
    return integers
