"""Files of a model state, loaded on their runtimes, where no bundle is written."""

from collections.abc import Callable
from dataclasses import dataclass

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import Target
from edgedl.runtime.backend import Array
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.precision import Precision
from edgedl.runtime.tensors import Floats, decode, encode


@dataclass(frozen=True)
class LoadedFile:
    """A file, loaded on one thread.

    Attributes:
        size_bytes: of the file.
        run: maps a batch of float32 inputs [B, ...] to all outputs.
        timed: the runtime's own call on an encoded sample.
    """

    size_bytes: int
    run: Callable[[tuple[Array, ...]], tuple[Floats, ...]]
    timed: Callable[[], object]


def build_and_load(state: ModelState, target: Target, precision: Precision) -> LoadedFile:
    """Make a file and load it on its runtime; nothing is compared.

    Raises:
        ExportError: it cannot be made.
        BackendUnavailableError: the runtime is not installed.
    """
    path, content = ArtifactBuilder(state).file(target, precision)
    sample = tuple(x[:1].numpy() for x in state.subject.example_inputs())
    return load_file(path, content, target, precision, sample)


def load_file(
    path: str, content: bytes, target: Target, precision: Precision, sample: tuple[Array, ...]
) -> LoadedFile:
    """Load a file's bytes; ``sample`` [1, ...] is what the timed call computes."""
    inputs, outputs = exporter_of(target).describe(content)
    artifact = Artifact(path, target.runtime, precision.name, path, inputs, outputs, ())
    session = open_backend(target.runtime).load(content, artifact, 1)

    def feed(x: tuple[Array, ...]) -> list[Array]:
        return [encode(a, spec) for a, spec in zip(x, inputs, strict=True)]

    encoded = feed(sample)
    return LoadedFile(
        len(content),
        lambda x: tuple(
            decode(y, spec) for y, spec in zip(session.run(feed(x)), outputs, strict=True)
        ),
        lambda: session.run(encoded),
    )
