"""Files of the tiny network with the graphs they were made from."""

import numpy as np
from tiny import make_task

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.encodings.emit import emit
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.state import ModelState


def built(compressed: CompressedModel, state: ModelState, name: str) -> BuiltArtifact:
    artifact = compressed.bundle.artifact(name)
    graph = state.graph
    if artifact.precision == "int8":
        graph = emit(state.quantized.graph, state.quantized.encodings, artifact.backend)
    return BuiltArtifact(artifact, compressed.bundle.read(artifact.path), graph)


def first_samples(count: int) -> np.ndarray:
    return next(iter(make_task().batches("test", count))).inputs[0]
