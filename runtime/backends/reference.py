"""onnx's reference evaluator: slow, and the standard's own word on what an ONNX file computes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgedl.runtime.backend import Array, Availability, Session
from edgedl.runtime.backends.external_data import refuse_external_data
from edgedl.runtime.backends.onnx_outputs import with_outputs
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line
from edgedl.runtime.wording import reason

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator


class ReferenceSession(Session):
    """An ONNX file in the reference evaluator, which keeps nothing between calls."""

    def __init__(
        self, evaluator: "ReferenceEvaluator", artifact: Artifact, tensors: Sequence[str] = ()
    ) -> None:
        """Keep the evaluator and the tensor names in manifest order, ``tensors`` behind them."""
        self._evaluator: ReferenceEvaluator | None = evaluator
        self._file = artifact.path
        self._inputs = [spec.name for spec in artifact.inputs]
        self._outputs = [*(spec.name for spec in artifact.outputs), *tensors]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference; any batch size where the shape leaves it free."""
        if self._evaluator is None:
            raise BadInputError("this session is closed")
        try:
            found = self._evaluator.run(self._outputs, dict(zip(self._inputs, inputs, strict=True)))
        except Exception as error:
            # Each operator raises what numpy raises.
            raise BadInputError(
                f"onnx's evaluator fails on {self._file}: {reason(error)}"
            ) from error
        return [np.array(output) for output in found]

    def close(self) -> None:
        """Drop the evaluator."""
        self._evaluator = None


class ReferenceBackend:
    """Evaluates ONNX files for ONNX Runtime node by node in numpy, in one thread."""

    label = "onnx's reference evaluator"
    package = "onnx"
    files = "ort"
    suffix = ".onnx"
    rounds_inputs = False
    parses_apart = False
    on_gpu = False
    without_vnni: str | None = None

    def available(self) -> Availability:
        """Say whether onnx imports."""
        try:
            import onnx
        except ImportError as error:
            return Availability(False, str(BackendUnavailableError.of(error, _missing())))
        return Availability(True, f"onnx {onnx.__version__}")

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load an ONNX file; it has one thread, whatever ``threads`` says."""
        return ReferenceSession(_evaluator(model, artifact), artifact)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load a copy of an ONNX file whose inner tensors are outputs."""
        evaluator = _evaluator(with_outputs(model, tensors), artifact)
        return ReferenceSession(evaluator, artifact, tensors)


def _evaluator(model: bytes, artifact: Artifact) -> "ReferenceEvaluator":
    try:
        import onnx
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise BackendUnavailableError.of(error, _missing()) from error
    refuse_external_data(model, artifact.path)
    try:
        return ReferenceEvaluator(onnx.load_from_string(model))
    except Exception as error:
        # Parsing raises protobuf's classes, an operator that is not there onnx's own.
        raise BadInputError(f"onnx's evaluator refuses {artifact.path}: {reason(error)}") from error


def _missing() -> str:
    return f"onnx is missing: {install_line('compress')}"


BACKEND = ReferenceBackend()
