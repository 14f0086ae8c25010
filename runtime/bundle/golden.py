"""Golden vectors: a few inputs and the outputs each artifact must give for them.

A flipped bit in a model file mostly changes its answers without any error. The sha256 catches it
in the file; these catch a runtime that computes something else.
"""

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.array_file import load_archive
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import IntegrityError

GOLDEN = "golden.npz"
GOLDEN_SAMPLES = 5


def encode_golden(
    inputs: tuple[npt.NDArray[np.generic], ...],
    expected: Mapping[str, tuple[npt.NDArray[np.float32], ...]],
) -> bytes:
    """Return the content of ``golden.npz``: inputs and expected outputs by artifact name."""
    arrays = {f"input/{i}": x for i, x in enumerate(inputs)}
    for name, outputs in expected.items():
        arrays.update({f"{name}/{i}": y for i, y in enumerate(outputs)})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def has_golden(bundle: Bundle) -> bool:
    """Say whether a bundle has golden inputs."""
    return GOLDEN in bundle.manifest.files


def golden_inputs(bundle: Bundle) -> tuple[npt.NDArray[np.generic], ...]:
    """Return the golden inputs of a bundle, float32 [5, ...] each.

    Raises:
        IntegrityError: the file is damaged or incomplete.
    """
    arrays = _read(bundle)
    return tuple(_take(arrays, f"input/{i}") for i in range(len(bundle.manifest.inputs)))


def golden_outputs(
    bundle: Bundle, artifact: str, count: int
) -> tuple[npt.NDArray[np.generic], ...]:
    """Return the outputs that an artifact must give for the golden inputs.

    Raises:
        IntegrityError: the file is damaged or has no vectors for this artifact.
    """
    arrays = _read(bundle)
    return tuple(_take(arrays, f"{artifact}/{i}") for i in range(count))


def _read(bundle: Bundle) -> dict[str, npt.NDArray[np.generic]]:
    if not has_golden(bundle):
        raise IntegrityError(f"{bundle.folder} has no {GOLDEN}")
    content = bundle.read(GOLDEN)
    try:
        return load_archive(content)
    except Exception as error:
        # numpy and zipfile raise many classes here; the sha256 holds, so it was made wrong.
        raise IntegrityError(f"{GOLDEN} is not an archive of arrays ({error})") from error


def _take(arrays: dict[str, npt.NDArray[np.generic]], key: str) -> npt.NDArray[np.generic]:
    if key not in arrays:
        raise IntegrityError(f"{GOLDEN} has no vectors '{key}'")
    return arrays[key]
