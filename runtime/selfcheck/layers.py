"""Compare the integers of every layer with those of the torch graph that a bundle was made from."""

from dataclasses import dataclass

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.certificates import LayerParity
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.bundle.layer_vectors import LAYER_VECTORS, positions, read_layer_vectors
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.tensors import encode

# Another processor rounds other ties; what that gave on the making machine may double here, and
# come to this much more. A wrong scale, a saturating sum or another kernel gives whole steps.
ALLOWED_FACTOR = 2.0
ALLOWED_MEAN_LSB = 0.1
ALLOWED_MAX_LSB = 2.0


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
    expected = read_layer_vectors(bundle, artifact, (len(layers), len(inputs[0])))
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
