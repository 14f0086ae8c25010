"""Some integers of every quantized tensor, and what they must be: the certificate, replayed.

The golden vectors say that a runtime computes something else. These say from which layer on. They
need no torch and no data: the inputs are the golden ones, the integers those of the torch graph.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedl.runtime.backend import Array
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.bundle.manifest import Artifact, LayerParity
from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.runner import encode

LAYER_VECTORS = "layers.npz"
MAX_POSITIONS = 256

# Another processor rounds other ties; what that gave on the making machine may double here, and
# come to this much more. A wrong scale, a saturating sum or another kernel gives whole steps.
ALLOWED_FACTOR = 2.0
ALLOWED_MEAN_LSB = 0.1
ALLOWED_MAX_LSB = 2.0

_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class LayerDeviation:
    """What one tensor's integers differ by here, and what they may.

    Attributes:
        layer: as certified where the bundle was made.
        mean_lsb: mean difference here, in quantization steps. max_lsb: largest.
    """

    layer: LayerParity
    mean_lsb: float
    max_lsb: int

    @property
    def passed(self) -> bool:
        """Whether the differences are those of rounding."""
        return (
            self.mean_lsb <= ALLOWED_FACTOR * self.layer.mean_lsb + ALLOWED_MEAN_LSB
            and self.max_lsb <= ALLOWED_FACTOR * self.layer.max_lsb + ALLOWED_MAX_LSB
        )


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


def can_check_layers(bundle: Bundle, artifact: Artifact) -> bool:
    """Say whether a bundle has vectors for the layers of an artifact."""
    parity = artifact.parity
    certified = parity is not None and parity.layers is not None and bool(parity.layers.layers)
    usable = open_backend(artifact.backend).available().usable
    return certified and usable and LAYER_VECTORS in bundle.manifest.files


def check_layers(bundle: Bundle, artifact: Artifact) -> list[LayerDeviation]:
    """Run the golden inputs and compare the integers of every certified layer, in their order.

    Raises:
        IntegrityError: the vectors are damaged or incomplete.
        BackendUnavailableError: the runtime is not installed.
        BadInputError: the runtime cannot show what is inside the file.
    """
    if artifact.parity is None or artifact.parity.layers is None:
        raise IntegrityError(f"{artifact.name} has no certificate of its layers")
    layers = artifact.parity.layers.layers
    inputs = golden_inputs(bundle)
    expected = _expected(bundle, artifact, (len(layers), len(inputs[0])))
    session = open_backend(artifact.backend).observe(
        bundle.read(artifact.path), artifact, [layer.tensor for layer in layers]
    )
    errors: list[list[Array]] = [[] for _ in layers]
    for sample in range(len(inputs[0])):
        given = [
            encode(x[sample : sample + 1], s) for x, s in zip(inputs, artifact.inputs, strict=True)
        ]
        for index, value in enumerate(session.run(given)[len(artifact.outputs) :]):
            found = value.ravel()[positions(value.size, expected.shape[2])].astype(np.int32)
            errors[index].append(np.abs(found - expected[index, sample, : len(found)]))
    return [
        LayerDeviation(layer, float(np.concatenate(e).mean()), int(np.concatenate(e).max()))
        for layer, e in zip(layers, errors, strict=True)
    ]


def _expected(bundle: Bundle, artifact: Artifact, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    content = bundle.read(LAYER_VECTORS)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            found: Array = archive[artifact.name]
    except Exception as error:
        # numpy and zipfile raise many classes here; the sha256 holds, so it was made wrong.
        raise IntegrityError(f"{LAYER_VECTORS} has no integers of {artifact.name}") from error
    if found.dtype.kind not in "iu" or found.ndim != 3 or found.shape[:2] != shape:
        raise IntegrityError(f"{LAYER_VECTORS} does not fit the layers of {artifact.name}")
    integers: npt.NDArray[np.int32] = found.astype(np.int32)
    return integers
