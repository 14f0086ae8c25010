"""What a runtime offers edgedl: a backend loads a file, a session runs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.placement import Placement

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Availability:
    """Whether a runtime can be used here: its version, or the reason and the remedy."""

    usable: bool
    detail: str


class Session(Protocol):
    """A loaded model file.

    Several threads may call one session at the same time: each gets the answer to its own inputs.
    A session whose runtime keeps inputs and outputs between calls holds a lock from the first input
    that it sets to the last output that it copies.

    Attributes:
        batches: the smallest and the largest batch of one run; None for any that the file takes.
    """

    batches: tuple[int, int] | None = None

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference on arrays in the file's own types and shapes, in manifest order.

        The returned arrays are the caller's.
        """
        ...

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None] | None:
        """Return a call that reads some arrays and writes others; one thread at a time may use it.

        None, the default, where a runtime copies its inputs and outputs in any case.

        Args:
            inputs: contiguous, in the file's own types and shapes; they must stay where they are.
            outputs: of the types and shapes that these inputs lead to, the same way.
        """
        return None

    def placement(self) -> Placement:
        """Say where the file computes, as the runtime says it."""
        return Placement("the CPU")

    def close(self) -> None:
        """Release the runtime's memory. The session cannot be used afterwards."""
        ...


class Backend(Protocol):
    """A runtime.

    Attributes:
        label: what people call it.
        package: that has to be installed.
        files: the runtime whose files of a bundle it runs: its own name, or another's.
        suffix: of its files.
        rounds_inputs: whether a layer of integer weights and float inputs computes in integers:
            the runtime then finds the ranges of its inputs while it runs.
        parses_apart: whether files are parsed in a process of their own in any case.
        on_gpu: whether it computes on an NVIDIA GPU: CUDA reserves more memory than there is.
        without_vnni: name of the target to compress for where an x86 processor has no VNNI and the
            runtime's int8 kernels saturate there; None where they do not.
    """

    label: str
    package: str
    files: str
    suffix: str
    rounds_inputs: bool
    parses_apart: bool
    on_gpu: bool
    without_vnni: str | None

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
