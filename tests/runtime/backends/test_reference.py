"""onnx's reference evaluator as a backend, and a backend of one's own."""

from collections.abc import Sequence

import numpy as np
import pytest

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.backend import Array, Availability, Backend, Session
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.runner import Runner


@pytest.mark.parametrize("name", ["ort-float32", "ort-int8"])
def test_the_evaluator_computes_what_onnx_runtime_does(
    compressed: CompressedModel, images: np.ndarray, name: str
) -> None:
    folder = compressed.bundle.folder
    with Runner.open(folder, name) as usual, Runner.open(folder, name, "reference") as slow:
        assert slow.artifact.name == name
        (expected,), (found,) = usual(images), slow(images)
    tolerance = 1e-5 if name == "ort-float32" else 2 * expected.std() / 100
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_the_evaluator_shows_tensors_from_inside(
    compressed: CompressedModel, images: np.ndarray
) -> None:
    artifact = compressed.bundle.artifact("ort-float32")
    content = compressed.bundle.read(artifact.path)
    inside = artifact.outputs[0].name
    session = open_backend("reference").observe(content, artifact, [inside])
    output, again = session.run([images])
    np.testing.assert_array_equal(output, again)
    session.close()


def test_what_the_evaluator_refuses_is_one_line(compressed: CompressedModel, refused) -> None:
    artifact = compressed.bundle.artifact("ort-float32")
    backend = open_backend("reference")
    with refused(BadInputError, "float32.onnx"):
        backend.load(b"no model", artifact, 1)
    session = backend.load(compressed.bundle.read(artifact.path), artifact, 1)
    with refused(BadInputError, "fails on float32.onnx"):
        session.run([np.zeros((1, 5), np.float32)])
    session.close()
    with refused(BadInputError, "closed"):
        session.run([np.zeros((1, 3, 12, 12), np.float32)])


def test_a_backend_runs_no_files_of_another_runtime(compressed: CompressedModel, refused) -> None:
    folder = compressed.bundle.folder
    with refused(BadInputError, "'tflite-int8' is for the backend 'tflite'", "'ort'"):
        Runner.open(folder, "tflite-int8", "reference")
    assert Runner.open(folder, None, "reference").artifact.backend == "ort"


class Halved:
    """A backend of one's own: ONNX Runtime's answers, halved."""

    label, package, files, suffix = "Halved", "onnxruntime", "ort", ".onnx"
    rounds_inputs, parses_apart, on_gpu, without_vnni = False, False, False, None
    usable = True

    def available(self) -> Availability:
        return Availability(self.usable, "always" if self.usable else "switched off")

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        return HalvedSession(open_backend("ort").load(model, artifact, threads))

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        raise BadInputError("nothing to see")


class HalvedSession(Session):
    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return [output / 2 for output in self._session.run(inputs)]

    def close(self) -> None:
        self._session.close()


def test_a_backend_of_ones_own_is_passed_as_an_object(
    compressed: CompressedModel, images: np.ndarray, refused
) -> None:
    backend: Backend = Halved()
    folder = compressed.bundle.folder
    with Runner.open(folder, "ort-float32") as usual:
        (expected,) = usual(images)
    with Runner.open(folder, "ort-float32", backend) as own:
        np.testing.assert_array_equal(own(images)[0], expected / 2)
        # What is to replace the model runs on it, too, and does not compute what it must.
        with refused(IntegrityError, "the model is not replaced"):
            own.swap(folder, "ort-float32")
    backend.usable = False
    with refused(BackendUnavailableError, "switched off"):
        Runner.open(folder, None, backend)
