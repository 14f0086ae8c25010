"""Hold the int8 files of one table against each other: are they one integer network?"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.artifacts.tolerance import output_steps
from edgedl.compress.parity.computed import is_computed_here
from edgedl.compress.parity.layers import FileIntegers, compare_layers, layers_of, single_samples
from edgedl.compress.parity.outputs import has_classes
from edgedl.compress.state import ModelState
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.certificates import RuntimeAgreement
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.runner import Floats, Runner


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
    return tuple(
        _agreement(state, bundle, first, second, inputs)
        for first, second in combinations(files, 2)
        if first.artifact.backend != second.artifact.backend
    )


def _has_layers(artifact: Artifact) -> bool:
    layers = artifact.parity.layers if artifact.parity else None
    return layers is not None and bool(layers.layers)


def _agreement(
    state: ModelState,
    bundle: Bundle,
    first: BuiltArtifact,
    second: BuiltArtifact,
    inputs: list[tuple[Array, ...]],
) -> RuntimeAgreement:
    samples = list(single_samples(inputs))
    readers = [FileIntegers(b, samples[0]) for b in (first, second)]
    differences = compare_layers(readers[0], readers[1], samples)
    paths = layers_of(first.graph)
    one, other = (_outputs(bundle, b.artifact, inputs) for b in (first, second))
    steps = output_steps(state, first.target)
    error = np.concatenate([np.abs(a - b).ravel() for a, b in zip(one, other, strict=True)])
    classifies = one[0].ndim == 2 and has_classes(state.subject.task)
    return RuntimeAgreement(
        first=first.artifact.name,
        second=second.artifact.name,
        samples=len(one[0]),
        mean_lsb_error=float(error.mean() / max(steps)) if steps else None,
        prediction_agreement=float((one[0].argmax(1) == other[0].argmax(1)).mean())
        if classifies
        else None,
        layer_samples=len(samples),
        layers=tuple(
            d.describe(node, paths[node], readers[0].matches[node].tensor.name)
            for node, d in differences.items()
        ),
    )


def _outputs(bundle: Bundle, artifact: Artifact, inputs: list[tuple[Array, ...]]) -> list[Floats]:
    with Runner(bundle, artifact) as runner:
        parts = [runner(*batch) for batch in inputs]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
