"""What a runtime offers edgedl, and the one place that knows which runtimes there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError

Array = npt.NDArray[np.generic]

BACKENDS = ("ort", "tflite", "tensorrt")


@dataclass(frozen=True)
class Availability:
    """Whether a runtime can be used here: its version, or the reason and the remedy."""

    usable: bool
    detail: str


class Session(Protocol):
    """A loaded model file."""

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference on arrays in the file's own types and shapes, in manifest order.

        The returned arrays are the caller's.
        """
        ...

    def close(self) -> None:
        """Release the runtime's memory. The session cannot be used afterwards."""
        ...


class Backend(Protocol):
    """A runtime."""

    def available(self) -> Availability:
        """Say whether the runtime is installed and works here."""
        ...

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load verified bytes.

        Raises:
            BackendUnavailableError: the runtime is not installed.
            BadInputError: the runtime refuses the file.
        """
        ...

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load verified bytes so that a run returns, behind the outputs, tensors from inside.

        Args:
            model: the file.
            artifact: its description.
            tensors: names in the file.

        Raises:
            BackendUnavailableError: the runtime is not installed.
            BadInputError: the runtime refuses the file, or has no such tensor.
        """
        ...


def open_backend(name: str) -> Backend:
    """Return the backend of this name; its driver is imported when it is used.

    Raises:
        BadInputError: there is no such backend.
        BackendUnavailableError: the backend cannot run here.
    """
    if name == "ort":
        from edgedl.runtime.backends.ort import OnnxRuntimeBackend

        return OnnxRuntimeBackend()
    if name == "tflite":
        from edgedl.runtime.backends.tflite import LiteRTBackend

        return LiteRTBackend()
    if name == "tensorrt":
        raise BackendUnavailableError(
            "no TensorRT runner: build an engine on the device from the bundle's file with trtexec"
        )
    raise BadInputError(f"unknown backend '{name}': there are {', '.join(BACKENDS)}")
