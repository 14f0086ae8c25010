"""Files of the tiny network with the graphs they were made from."""

import numpy as np
from tiny import make_task

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.encodings.emit import emit
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import load_target


def built(compressed: CompressedModel, state: ModelState, name: str) -> BuiltArtifact:
    artifact = compressed.bundle.artifact(name)
    graph, target = state.graph, load_target(artifact.backend)
    if artifact.precision == "int8":
        graph = emit(state.quantized.graph, state.quantized.encodings, target)
    return BuiltArtifact(artifact, compressed.bundle.read(artifact.path), graph, target)


def first_samples(count: int) -> np.ndarray:
    return next(iter(make_task().batches("test", count))).inputs[0]
