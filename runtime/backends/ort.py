"""ONNX Runtime on the CPU."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgedl.runtime.backend import Array, Availability, Session
from edgedl.runtime.backends.external_data import refuse_external_data
from edgedl.runtime.backends.onnx_outputs import with_outputs
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line
from edgedl.runtime.precision import INT8_WEIGHTS

if TYPE_CHECKING:
    import onnxruntime

FATAL_ONLY = 4


class OnnxRuntimeSession(Session):
    """An ONNX file in ONNX Runtime."""

    def __init__(
        self,
        session: "onnxruntime.InferenceSession",
        artifact: Artifact,
        tensors: Sequence[str] = (),
    ) -> None:
        """Keep the session and the tensor names in manifest order, ``tensors`` behind them."""
        self._session: onnxruntime.InferenceSession | None = session
        self._run = session.run
        self._inputs = [spec.name for spec in artifact.inputs]
        self._outputs = [*(spec.name for spec in artifact.outputs), *tensors]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference; any batch size where the shape leaves it free."""
        outputs: list[Array] = self._run(
            self._outputs, dict(zip(self._inputs, inputs, strict=True))
        )
        return outputs

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None] | None:
        """Return a call that reads and writes memory where it is."""
        session = self._session
        if session is None:
            return None
        binding = session.io_binding()
        for name, x in zip(self._inputs, inputs, strict=True):
            binding.bind_cpu_input(name, x)
        for name, y in zip(self._outputs, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, y.dtype, y.shape, y.ctypes.data)
        return partial(session.run_with_iobinding, binding)

    def close(self) -> None:
        """Drop the session."""
        self._run, self._session = _closed, None


def _closed(*_: object) -> list[Array]:
    raise BadInputError("this session is closed")


class OnnxRuntimeBackend:
    """Loads ONNX files; only the CPU provider, so nothing can fall back in silence."""

    label = "ONNX Runtime"
    package = "onnxruntime"
    files = "ort"
    suffix = ".onnx"
    rounds_inputs = False
    without_vnni: str | None = "ort_avx2"

    def available(self) -> Availability:
        """Say whether onnxruntime imports."""
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(False, str(BackendUnavailableError.of(error, _missing())))
        return Availability(True, f"onnxruntime {onnxruntime.__version__}")

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load an ONNX file; ``threads`` work inside an operator, one operator at a time."""
        return OnnxRuntimeSession(_session(model, artifact, threads), artifact)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load a copy of an ONNX file whose inner tensors are outputs.

        The integers behind a ``QuantizeLinear`` are what the fused integer operators write, so the
        same operators are fused as without; the runtime's choice of data layouts may differ.
        """
        session = _session(with_outputs(model, tensors), artifact, 1)
        return OnnxRuntimeSession(session, artifact, tensors)


def _session(model: bytes, artifact: Artifact, threads: int) -> "onnxruntime.InferenceSession":
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError.of(error, _missing()) from error
    refuse_external_data(model, artifact.path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    if artifact.kind is INT8_WEIGHTS:
        # Such a file computes in float. By default its weights are converted again in every run,
        # which takes longer than the layers themselves; now they are once, when it is loaded.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:
        # onnxruntime raises a dozen unrelated classes here; each means the file is refused.
        reason = " ".join(str(error).split())
        raise BadInputError(f"onnxruntime refuses {artifact.path}: {reason}") from error
    _check_names(artifact, session)
    return session


def _check_names(artifact: Artifact, session: "onnxruntime.InferenceSession") -> None:
    for specs, found in (
        (artifact.inputs, session.get_inputs()),
        (artifact.outputs, session.get_outputs()),
    ):
        names = {value.name for value in found}
        for spec in specs:
            if spec.name not in names:
                known = ", ".join(sorted(names))
                raise BadInputError(f"{artifact.path} has no tensor '{spec.name}': it has {known}")


def _missing() -> str:
    return f"onnxruntime is missing: {install_line('ort')}"


BACKEND = OnnxRuntimeBackend()
