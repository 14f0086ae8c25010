"""The on-device door: a bundle in, float arrays in, float arrays out."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgedl.runtime.backend import Array, Session
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.layout import to_file, to_network
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.bundle.signature import Trust
from edgedl.runtime.errors import BackendUnavailableError, BadInputError

Floats = npt.NDArray[np.float32]


class Runner:
    """Runs one artifact of a bundle.

    Several threads may share a runner: each call returns the answer to its own inputs.

    >>> with Runner.open(Path("out/bundle")) as runner:  # doctest: +SKIP
    ...     (logits,) = runner(x)                        # float32 [N, C, H, W] -> [N, K]
    """

    def __init__(self, bundle: Bundle, artifact: Artifact, threads: int = 1) -> None:
        """Verify and load one artifact.

        Raises:
            IntegrityError: the file is not what the manifest says.
            BackendUnavailableError: its runtime is not installed.
            BadInputError: the runtime refuses the file.
        """
        backend = open_backend(artifact.backend)
        self.bundle, self.artifact = bundle, artifact
        self.session = backend.load(bundle.read(artifact.path), artifact, threads)

    @classmethod
    def open(
        cls,
        folder: Path,
        artifact: str | None = None,
        backend: str | None = None,
        threads: int = 1,
        trust: Trust | None = None,
    ) -> "Runner":
        """Open a bundle and load the named artifact, or the best for the backend.

        Without a name: the recommended artifact if its runtime is here (and is the wanted
        backend), else the first one whose runtime is. With ``trust``, a bundle must be signed with
        one of its keys.
        """
        bundle = Bundle.open(folder, trust)
        chosen = bundle.artifact(artifact) if artifact else _choose(bundle, backend)
        if backend not in (None, chosen.backend):
            raise BadInputError(f"artifact '{chosen.name}' is not for the backend '{backend}'")
        return cls(bundle, chosen, threads)

    def __call__(self, *inputs: Array) -> tuple[Floats, ...]:
        """Run a batch of any size: float32 inputs [N, ...] -> float32 outputs [N, ...].

        Raises:
            BadInputError: wrong number, shape or type of inputs, or values that are not finite.
        """
        logical = self.bundle.manifest.inputs
        if len(inputs) != len(logical):
            raise BadInputError(f"the network takes {len(logical)} inputs, got {len(inputs)}")
        checked = [check_input(x, spec) for x, spec in zip(inputs, logical, strict=True)]
        if len({len(x) for x in checked}) > 1:
            raise BadInputError(
                f"the inputs have different batch sizes: {[len(x) for x in checked]}"
            )
        for x, spec in zip(checked, self.artifact.inputs, strict=True):
            _check_file_takes(x, spec, self.artifact.name)
        return run_file(self.session, self.artifact, checked)

    def close(self) -> None:
        """Release the runtime's memory."""
        self.session.close()

    def __enter__(self) -> "Runner":
        """Return the runner itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def run_file(session: Session, artifact: Artifact, inputs: Sequence[Array]) -> tuple[Floats, ...]:
    """Run a batch on a loaded file, in the batches that it takes.

    Args:
        session: of the file.
        artifact: its description.
        inputs: one array [N, ...] per input.

    Raises:
        BadInputError: N is no multiple of the file's batch.
    """
    encoded = [encode(x, s) for x, s in zip(inputs, artifact.inputs, strict=True)]
    step = artifact.inputs[0].shape[0] or _fixed_batch(artifact.inputs[1:]) or len(encoded[0])
    if len(encoded[0]) % step:
        raise BadInputError(
            f"{artifact.name} takes batches of {step}, got {len(encoded[0])} samples"
        )
    parts = [
        session.run([x[i : i + step] for x in encoded]) for i in range(0, len(encoded[0]), step)
    ]
    return tuple(
        decode(np.concatenate(column), spec)
        for column, spec in zip(zip(*parts, strict=True), artifact.outputs, strict=True)
    )


def _fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """Return the batch that a file fixes for one of its inputs."""
    return next((spec.shape[0] for spec in inputs if spec.shape[0]), None)


def encode(x: Array, spec: TensorSpec) -> Array:
    """Turn float32 values into what the file takes.

    They are normalised where the file is to be fed so, in its layout, and quantized where it takes
    integers.

    >>> encode(np.array([0.0, 0.5], np.float32), TensorSpec("x", (2,), "int8", 0.5, -1)).tolist()
    [-1, 0]
    """
    if spec.mean:
        x = _normalised(x, spec)
    if spec.layout is not None:
        x = to_file(x, spec.layout)
    if spec.scale is None or spec.zero_point is None:
        return np.ascontiguousarray(x, spec.dtype)
    dtype = np.dtype(spec.dtype)
    limits = np.iinfo(dtype)
    steps = np.rint(np.asarray(x, np.float32) / np.float32(spec.scale)) + spec.zero_point
    return np.ascontiguousarray(np.clip(steps, limits.min, limits.max), dtype)


def _normalised(x: Array, spec: TensorSpec) -> Floats:
    """Return float32 values [N, C, ...] minus the mean of each channel, over its deviation."""
    by_channel = (-1, *[1] * (x.ndim - 2))
    mean, std = (np.asarray(v, np.float32).reshape(by_channel) for v in (spec.mean, spec.std))
    return (np.asarray(x, np.float32) - mean) / std


def decode(y: Array, spec: TensorSpec) -> Floats:
    """Turn a file's output into float32 values in the network's layout.

    >>> decode(np.array([3], np.int8), TensorSpec("y", (1,), "int8", 0.5, 1)).tolist()
    [1.0]
    """
    if spec.layout is not None:
        y = to_network(y, spec.layout)
    if spec.scale is None or spec.zero_point is None:
        return y.astype(np.float32, copy=False)
    return (y.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)


def _choose(bundle: Bundle, backend: str | None) -> Artifact:
    candidates = [a for a in bundle.manifest.artifacts if backend in (None, a.backend)]
    if backend is not None:
        open_backend(backend)
        if not candidates:
            there = dict.fromkeys(artifact.backend for artifact in bundle.manifest.artifacts)
            raise BadInputError(
                f"{bundle.folder} has no artifact for the backend '{backend}': it has "
                f"{', '.join(there)}"
            )
    recommended = bundle.manifest.recommended
    candidates.sort(key=lambda a: a.name != recommended)
    reasons = []
    for artifact in candidates:
        availability = open_backend(artifact.backend).available()
        if availability.usable:
            return artifact
        reasons.append(availability.detail)
    raise BackendUnavailableError("; ".join(dict.fromkeys(reasons)) or "no runnable artifact")


def _check_file_takes(x: Array, spec: TensorSpec, artifact: str) -> None:
    """A file may fix sizes that the network leaves free, such as the length of a sequence."""
    for axis, (want, have) in enumerate(zip(spec.network_shape, x.shape, strict=True)):
        if axis and want not in (None, have):
            raise BadInputError(
                f"{artifact} takes inputs of size {want} along axis {axis}, got {have}: choose an "
                "artifact that leaves it free ('edgedl inspect' lists them)"
            )


def check_input(x: Array, spec: TensorSpec) -> Array:
    """Return an input as an array.

    Raises:
        BadInputError: wrong shape or type, no samples, or values that are not finite.
    """
    # A torch tensor is taken, too.
    x = np.asarray(x)
    shape = ", ".join("N" if d is None else str(d) for d in spec.shape)
    fits = x.ndim == len(spec.shape) and all(
        want in (None, have) for want, have in zip(spec.shape, x.shape, strict=True)
    )
    if not fits or 0 in x.shape:
        raise BadInputError(f"input '{spec.name}' must be [{shape}], got {list(x.shape)}")
    if x.dtype != np.dtype(spec.dtype):
        raise BadInputError(f"input '{spec.name}' must be {spec.dtype}, got {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise BadInputError(f"input '{spec.name}' has values that are not finite (NaN or inf)")
    return x
