"""One model file of a bundle on its runtime: float arrays in, float arrays out."""

import warnings
from collections.abc import Sequence

import numpy as np

from edgedl.runtime.backend import Array, Backend, Session
from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.closing import Closing
from edgedl.runtime.errors import BadInputError, EdgedlError, FileFailedError
from edgedl.runtime.ready_calls import ReadyCall, ReadyCalls
from edgedl.runtime.tensors import Floats, check_input, decode, encode, unusual
from edgedl.runtime.wording import reason


class UnusualInputWarning(UserWarning):
    """Inputs lie far from those that a network was calibrated on."""


class LoadedModel(Closing):
    """A model file that was verified and loaded.

    Attributes:
        bundle: that it is from.
        artifact: which of its files.
        session: of the runtime.
        instead: why it runs and not what was asked for; empty where it is that.
        differs: how its golden outputs on this machine differ from those where it was made; empty
            where they do not, or nobody looked.
        tried_s: what it took to try a file that was new here, in seconds.
    """

    def __init__(
        self,
        bundle: Bundle,
        artifact: Artifact,
        threads: int = 1,
        backend: Backend | None = None,
        session: Session | None = None,
        instead: str = "",
    ) -> None:
        """Verify and load one artifact.

        Args:
            bundle: that has it.
            artifact: to load.
            threads: of the runtime.
            backend: that runs it; None for that of the runtime it was made for.
            session: of the file, where there is one already.
            instead: why it runs and not what was asked for.

        Raises:
            IntegrityError: the file is not what the manifest says.
            BackendUnavailableError: its runtime is not installed.
            BadInputError: the runtime refuses the file.
        """
        self.bundle, self.artifact, self.instead = bundle, artifact, instead
        if session is None:
            backend = backend or open_backend(artifact.backend)
            session = backend.load(bundle.read(artifact.path), artifact, threads)
        self.session = session
        self.differs, self.tried_s = "", 0.0
        self._warned = False
        self._ready = ReadyCalls(self.session, artifact, bundle.manifest.inputs)

    def __call__(self, *inputs: Array) -> tuple[Floats, ...]:
        """Run a batch of any size: float32 inputs [N, ...] -> float32 outputs [N, ...].

        Raises:
            BadInputError: wrong number, shape or type of inputs, or values that are not finite.
            FileFailedError: the runtime fails.
        """
        try:
            outputs = self._ready(inputs)
            if outputs is None:
                outputs = self._check_and_run(inputs)
                self._ready.prepare(inputs, outputs)
        except EdgedlError:
            raise
        except Exception as error:
            # Runtimes raise anything.
            raise FileFailedError(self.artifact.name, reason(error)) from error
        return outputs

    def ready(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> ReadyCall | None:
        """Return a call with memory of its own for inputs like these; None where there is none."""
        return self._ready.ready(inputs, outputs)

    def _check_and_run(self, inputs: Sequence[Array]) -> tuple[Floats, ...]:
        logical = self.bundle.manifest.inputs
        if len(inputs) != len(logical):
            raise BadInputError(f"the network takes {len(logical)} inputs, got {len(inputs)}")
        checked = [check_input(x, spec) for x, spec in zip(inputs, logical, strict=True)]
        if len({len(x) for x in checked}) > 1:
            raise BadInputError(
                f"the inputs have different batch sizes: {[len(x) for x in checked]}"
            )
        if not self._warned:
            for x, spec in zip(checked, logical, strict=True):
                if text := unusual(x, spec):
                    self._warned = True
                    warnings.warn(text, UnusualInputWarning, stacklevel=3)
        for x, spec in zip(checked, self.artifact.inputs, strict=True):
            _check_file_takes(x, spec, self.artifact.name)
        return run_file(self.session, self.artifact, checked)

    def close(self) -> None:
        """Release the runtime's memory."""
        self._ready.close()
        self.session.close()


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
    count = len(encoded[0])
    fixed = artifact.inputs[0].shape[0] or _fixed_batch(artifact.inputs[1:])
    if fixed and count % fixed:
        raise BadInputError(f"{artifact.name} takes batches of {fixed}, got {count} samples")
    least, most = session.batches or (1, count)
    step = fixed or min(count, most)
    parts = [
        _run_part(session, [x[i : i + step] for x in encoded], least) for i in range(0, count, step)
    ]
    return tuple(
        decode(np.concatenate(column), spec)
        for column, spec in zip(zip(*parts, strict=True), artifact.outputs, strict=True)
    )


def _run_part(session: Session, inputs: Sequence[Array], least: int) -> list[Array]:
    """Run a batch, filled up with copies of its last sample where it is smaller than the least."""
    count = len(inputs[0])
    if count >= least:
        return session.run(inputs)
    filled = [np.concatenate([x, np.repeat(x[-1:], least - count, 0)]) for x in inputs]
    return [y[:count] for y in session.run(filled)]


def _fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """Return the batch that a file fixes for one of its inputs."""
    return next((spec.shape[0] for spec in inputs if spec.shape[0]), None)


def _check_file_takes(x: Array, spec: TensorSpec, artifact: str) -> None:
    """A file may fix sizes that the network leaves free, such as the length of a sequence."""
    for axis, (want, have) in enumerate(zip(spec.network_shape, x.shape, strict=True)):
        if axis and want not in (None, have):
            raise BadInputError(
                f"{artifact} takes inputs of size {want} along axis {axis}, got {have}: choose an "
                "artifact that leaves it free ('edgedl inspect' lists them)"
            )
