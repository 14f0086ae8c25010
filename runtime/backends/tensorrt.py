"""TensorRT on NVIDIA GPUs: its files are made and checked on the host, and not run by edgedl."""

from collections.abc import Sequence

from edgedl.runtime.backend import Availability, Session
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError

NOT_RUN = "no TensorRT runner: build an engine on the device from the bundle's file with trtexec"


class TensorRTBackend:
    """Runs nothing; says what to do instead."""

    label = "TensorRT"
    package = "tensorrt"
    suffix = ".onnx"
    rounds_inputs = False
    without_vnni: str | None = None

    def available(self) -> Availability:
        """Say that there is no runner."""
        return Availability(False, NOT_RUN)

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load nothing."""
        raise BackendUnavailableError(NOT_RUN)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load nothing."""
        raise BackendUnavailableError(NOT_RUN)


BACKEND = TensorRTBackend()
