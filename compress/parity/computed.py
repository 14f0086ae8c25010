"""Who computes a file on this machine: its runtime, or what stands in for it."""

from collections.abc import Callable, Sequence

from edgedl.compress.artifacts.build import BuiltArtifact
from edgedl.compress.export.exporter import StandIn, exporter_of
from edgedl.runtime.backend import Session
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.errors import BackendUnavailableError


def compute(built: BuiltArtifact) -> StandIn:
    """Return a session of a file, and who computes it.

    Raises:
        BackendUnavailableError: the runtime is not here, and nothing stands in for it.
        BadInputError: the runtime refuses the file.
    """
    backend = open_backend(built.artifact.backend)
    return _open(built, lambda: backend.load(built.content, built.artifact, 1))


def observe(built: BuiltArtifact, tensors: Sequence[str]) -> Session:
    """Return a session whose runs return, behind the outputs, tensors from inside.

    Raises:
        BackendUnavailableError: the runtime is not here, and nothing stands in for it.
        BadInputError: the runtime refuses the file, or cannot show what is inside.
    """
    backend = open_backend(built.artifact.backend)
    return _open(
        built, lambda: backend.observe(built.content, built.artifact, tensors), tensors
    ).session


def is_computed_here(built: BuiltArtifact) -> bool:
    """Say whether the runtime itself computes a file on this machine."""
    return open_backend(built.artifact.backend).available().usable


def _open(
    built: BuiltArtifact, load: Callable[[], Session], tensors: Sequence[str] = ()
) -> StandIn:
    availability = open_backend(built.artifact.backend).available()
    if availability.usable:
        return StandIn(availability.detail, load())
    exporter, precision = exporter_of(built.target), built.artifact.kind
    found = exporter.stand_in(built.content, precision, tensors)
    if found is None:
        raise BackendUnavailableError(availability.detail)
    return found
