"""Files of a model state, loaded on their runtimes, where no bundle is written."""

from collections.abc import Callable
from dataclasses import dataclass

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.export.onnx.write import describe_onnx
from edgedl.compress.export.tflite.write import describe_tflite
from edgedl.compress.state import ModelState
from edgedl.runtime.backend import Array, open_backend
from edgedl.runtime.bundle.manifest import Artifact, BackendName, Precision
from edgedl.runtime.runner import Floats, decode, encode


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


def build_and_load(state: ModelState, backend: BackendName, precision: Precision) -> LoadedFile:
    """Make the file of a runtime and load it; nothing is compared.

    Raises:
        ExportError: it cannot be made.
        BackendUnavailableError: the runtime is not installed.
    """
    path, content = ArtifactBuilder(state).file(backend, precision)
    sample = tuple(x[:1].numpy() for x in state.subject.example_inputs())
    return load_file(path, content, backend, precision, sample)


def load_file(
    path: str, content: bytes, backend: BackendName, precision: Precision, sample: tuple[Array, ...]
) -> LoadedFile:
    """Load a file's bytes; ``sample`` [1, ...] is what the timed call computes."""
    describe = describe_tflite if backend == "tflite" else describe_onnx
    inputs, outputs = describe(content)
    artifact = Artifact(path, backend, precision, path, inputs, outputs, ())
    session = open_backend(backend).load(content, artifact, 1)

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
