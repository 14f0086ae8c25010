"""Which file of a bundle runs on which backend, and what happens where that cannot be."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from edgedl.runtime.backend import Backend
from edgedl.runtime.backends.runtimes import backends_for, open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, FileFailedError
from edgedl.runtime.first_load import load_file
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.wording import meant

Policy = Literal["require", "prefer", "any"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


@dataclass(frozen=True)
class Wish:
    """What is to run of a bundle.

    Attributes:
        artifact: None for the recommended one, or the first for the backend.
        backend: by name, or an object of one's own; None for that of the artifact.
        policy: what happens where that cannot run. "require": it is an error, and so is an operator
            that another device computes. "prefer": the next best runs, and says why. "any": the
            next best runs. None for "require" where an artifact or a backend is named, else
            "prefer".
        threads: of the runtime.
    """

    artifact: Artifact | None = None
    backend: str | Backend | None = None
    policy: Policy | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse a policy that there is not.

        Raises:
            BadInputError: there is no such policy.
        """
        if self.policy is not None and self.policy not in POLICIES:
            raise BadInputError(
                f"unknown policy '{self.policy}'{meant(str(self.policy), POLICIES)}"
            )

    def load(self, bundle: Bundle) -> LoadedModel:
        """Load the file that is wanted, or by the policy the next best.

        Raises:
            BadInputError: the bundle has none for the backend, or the runtime refuses the file.
            BackendUnavailableError: what is wanted cannot run here, and neither can what the policy
                allows.
            FileFailedError: the file crashes its runtime.
            IntegrityError: a file is not what the manifest says.
        """
        backend = self._backend()
        wanted = _wanted(bundle, self.artifact, backend)
        named = self.artifact is not None or self.backend is not None
        policy = self.policy or ("require" if named else "prefer")
        reasons, first = [], ""
        if backend is not None and all(
            a.backend != backend.files for a in bundle.manifest.artifacts
        ):
            first = _no_file(bundle, backend)
            if policy == "require":
                raise BadInputError(first)
        tried: list[tuple[Artifact, Backend]] = []
        for artifact, backend in wanted if policy == "require" else chain(wanted, _all(bundle)):
            if (artifact, backend) in tried:
                continue
            tried.append((artifact, backend))
            availability = backend.available()
            try:
                if not availability.usable:
                    raise BackendUnavailableError(availability.detail)
                if policy == "require":
                    return self._load_alone(bundle, artifact, backend)
                instead = first if policy == "prefer" else ""
                return load_file(bundle, artifact, self.threads, backend, instead)
            except (BadInputError, BackendUnavailableError, FileFailedError) as error:
                if policy == "require" and availability.usable:
                    raise
                reasons.append(str(error))
                first = first or _cannot_run(artifact, backend, reasons[0])
        raise BackendUnavailableError("; ".join(dict.fromkeys(reasons)) or "no runnable artifact")

    def _backend(self) -> Backend | None:
        return open_backend(self.backend) if isinstance(self.backend, str) else self.backend

    def _load_alone(self, bundle: Bundle, artifact: Artifact, backend: Backend) -> LoadedModel:
        """Load a file, all of which must run on the device of the backend."""
        model = load_file(bundle, artifact, self.threads, backend)
        elsewhere = model.session.placement().elsewhere
        if elsewhere:
            model.close()
            raise BackendUnavailableError(
                f"{artifact.name} does not run on {backend.label} alone: {elsewhere[0]}; with the "
                "policy 'prefer' it runs so, and says it"
            )
        return model


def _cannot_run(artifact: Artifact, backend: Backend, why: str) -> str:
    # Some reasons begin with the name of the backend.
    return (
        f"{artifact.name} cannot run on {backend.label}: {why.removeprefix(backend.label + ': ')}"
    )


def _no_file(bundle: Bundle, backend: Backend) -> str:
    has = dict.fromkeys(artifact.backend for artifact in bundle.manifest.artifacts)
    return (
        f"{bundle.folder} has no artifact for the backend '{backend.files}': it has "
        f"{', '.join(has)}"
    )


def _wanted(
    bundle: Bundle, chosen: Artifact | None, backend: Backend | None
) -> Iterator[tuple[Artifact, Backend]]:
    """Yield the artifacts that are asked for, with the backends that may run them.

    Raises:
        BadInputError: the backend does not run the artifact.
    """
    if backend is None:
        first = chosen or next(iter(_recommended_first(bundle)), None)
        if first is not None:
            yield from ((first, b) for b in backends_for(first.backend))
    elif chosen is not None:
        if backend.files != chosen.backend:
            raise BadInputError(
                f"artifact '{chosen.name}' is for the backend '{chosen.backend}', {backend.label} "
                f"runs those for '{backend.files}'"
            )
        yield chosen, backend
    else:
        for artifact in _recommended_first(bundle):
            if artifact.backend == backend.files:
                yield artifact, backend


def _all(bundle: Bundle) -> Iterator[tuple[Artifact, Backend]]:
    for artifact in _recommended_first(bundle):
        for backend in backends_for(artifact.backend):
            yield artifact, backend


def _recommended_first(bundle: Bundle) -> list[Artifact]:
    recommended = bundle.manifest.recommended
    return sorted(bundle.manifest.artifacts, key=lambda artifact: artifact.name != recommended)
