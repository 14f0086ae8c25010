"""Write down what the integers of every layer must be, small enough for a bundle."""

from collections.abc import Sequence

import numpy as np

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.parity.computed import is_computed_here
from edgedl.compress.parity.inner_tensors import GraphIntegers
from edgedl.compress.parity.layers import FileIntegers, single_samples
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.bundle.layer_vectors import MAX_POSITIONS, encode_layer_vectors, positions
from edgedl.runtime.bundle.manifest import Artifact

# Of the other files of the bundle; but never fewer places than these of a tensor.
LARGEST_SHARE = 0.05
MIN_POSITIONS = 8


def layer_vectors(bundle: Bundle, built: Sequence[BuiltArtifact], size_bytes: int) -> bytes | None:
    """Return ``layers.npz`` for the artifacts whose layers are certified; None if there are none.

    Args:
        bundle: holds the files and the golden inputs.
        built: artifacts with their parity and their graphs.
        size_bytes: of the bundle so far.
    """
    certified = [b for b in built if is_computed_here(b) and certified_layers(b.artifact)]
    tensors = sum(len(certified_layers(b.artifact)) for b in certified)
    if not tensors:
        return None
    inputs = golden_inputs(bundle)
    places = int(LARGEST_SHARE * size_bytes / (tensors * len(inputs[0])))
    count = max(MIN_POSITIONS, min(MAX_POSITIONS, places))
    samples = list(single_samples([inputs], len(inputs[0])))
    return encode_layer_vectors({b.artifact.name: _expected(b, samples, count) for b in certified})


def certified_layers(artifact: Artifact) -> tuple[str, ...]:
    """Return the nodes of an artifact's certificate that a device can read again."""
    layers = artifact.parity.layers if artifact.parity else None
    return () if layers is None else tuple(layer.node for layer in layers.layers)


def _expected(built: BuiltArtifact, samples: list[tuple[Array, ...]], count: int) -> Array:
    matches = FileIntegers(built, samples[0]).matches
    graph = GraphIntegers(built.graph)
    found = [graph.read(sample) for sample in samples]
    dtype = np.dtype(built.target.activations)
    nodes = certified_layers(built.artifact)
    expected = np.zeros((len(nodes), len(samples), count), dtype)
    for row, node in zip(expected, nodes, strict=True):
        flat = np.stack([matches[node].to_file(integers[node]) for integers in found])
        places = positions(flat.shape[1], count)
        row[:, : len(places)] = flat[:, places]
    return expected
