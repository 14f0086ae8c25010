"""Hold the int8 files of one table against each other: are they one integer network?"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.artifacts.tolerance import output_steps
from edgedl.compress.export.exporter import Centred
from edgedl.compress.parity.computed import is_computed_here
from edgedl.compress.parity.layers import (
    FileIntegers,
    LayerDifferences,
    layers_of,
    read_enough,
    single_samples,
)
from edgedl.compress.parity.outputs import has_classes
from edgedl.compress.state import ModelState
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.certificates import RuntimeAgreement
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.tensors import Floats


def measure_between(
    state: ModelState,
    bundle: Bundle,
    built: Sequence[BuiltArtifact],
    inputs: list[tuple[Array, ...]],
) -> tuple[RuntimeAgreement, ...]:
    """Compare every pair of int8 files that are for two different runtimes of this machine.

    TensorRT quantizes otherwise (symmetric, fewer tensors), so its integers are others by design.

    Args:
        state: what they were made of.
        bundle: holds the files.
        built: the artifacts to compare, with a certificate of their layers.
        inputs: batches of test samples.
    """
    files = [b for b in built if is_computed_here(b) and _has_layers(b.artifact)]
    pairs = [
        (one, other)
        for one, other in combinations(files, 2)
        if one.artifact.backend != other.artifact.backend
    ]
    if not pairs:
        return ()
    found = _Found(bundle, files, inputs)
    return tuple(_agreement(state, found, one, other) for one, other in pairs)


class _Found:
    """What every file computes; each runs once on each sample.

    Attributes:
        outputs: by artifact, every output of all samples.
        layers: by artifact, samples of the integers inside.
        tensors: by artifact, the names in the file of the graph's nodes.
    """

    def __init__(
        self, bundle: Bundle, files: Sequence[BuiltArtifact], inputs: list[tuple[Array, ...]]
    ) -> None:
        samples = list(single_samples(inputs))
        self.outputs: dict[str, list[Floats]] = {}
        self.layers: dict[str, list[dict[str, Centred]]] = {}
        self.tensors: dict[str, dict[str, str]] = {}
        for file in files:
            name, reader = file.artifact.name, FileIntegers(file, samples[0])
            self.outputs[name] = _outputs(bundle, file.artifact, inputs)
            self.tensors[name] = {node: m.tensor.name for node, m in reader.matches.items()}
            self.layers[name] = read_enough(reader, samples)


def _has_layers(artifact: Artifact) -> bool:
    layers = artifact.parity.layers if artifact.parity else None
    return layers is not None and bool(layers.layers)


def _agreement(
    state: ModelState, found: _Found, first: BuiltArtifact, second: BuiltArtifact
) -> RuntimeAgreement:
    names = first.artifact.name, second.artifact.name
    differences = LayerDifferences()
    for expected, other in zip(*(found.layers[name] for name in names), strict=False):
        differences.add(expected, other)
    paths = layers_of(first.graph)
    one, two = (found.outputs[name] for name in names)
    steps = output_steps(state, first.target)
    error = np.concatenate([np.abs(a - b).ravel() for a, b in zip(one, two, strict=True)])
    classifies = one[0].ndim == 2 and has_classes(state.subject.task)
    return RuntimeAgreement(
        first=names[0],
        second=names[1],
        samples=len(one[0]),
        mean_lsb_error=float(error.mean() / max(steps)) if steps else None,
        prediction_agreement=float((one[0].argmax(1) == two[0].argmax(1)).mean())
        if classifies
        else None,
        layer_samples=differences.samples,
        layers=tuple(
            d.describe(node, paths[node], found.tensors[names[0]][node])
            for node, d in differences.by_node.items()
        ),
    )


def _outputs(bundle: Bundle, artifact: Artifact, inputs: list[tuple[Array, ...]]) -> list[Floats]:
    with LoadedModel(bundle, artifact) as runner:
        parts = [runner(*batch) for batch in inputs]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
