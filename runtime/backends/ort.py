"""ONNX Runtime: on the CPU, or with one of its other execution providers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from edgedl.runtime.backend import Array, Availability, Session
from edgedl.runtime.backends.external_data import refuse_external_data
from edgedl.runtime.backends.onnx_outputs import with_outputs
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.gpu import find_gpu
from edgedl.runtime.install import install_line
from edgedl.runtime.placement import Fallback, Placement
from edgedl.runtime.precision import INT8_WEIGHTS

if TYPE_CHECKING:
    import onnxruntime

FATAL_ONLY = 4
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# What people call them, and the package that has them.
PROVIDERS = {
    CPU: ("ONNX Runtime", "onnxruntime"),
    CUDA: ("ONNX Runtime on CUDA", "onnxruntime-gpu"),
}
# TensorFloat-32 has 10 bits of mantissa: a float32 file would no longer compute in float32.
OPTIONS: Mapping[str, Mapping[str, Any]] = {CUDA: {"use_tf32": 0}}


class OnnxRuntimeSession(Session):
    """An ONNX file in ONNX Runtime."""

    def __init__(
        self,
        session: "onnxruntime.InferenceSession",
        artifact: Artifact,
        tensors: Sequence[str] = (),
        device: str = "",
    ) -> None:
        """Keep the session and the tensor names in manifest order, ``tensors`` behind them.

        Args:
            session: loaded.
            artifact: its description.
            tensors: from inside, which it has as outputs.
            device: of a provider that may leave operators to the CPU; empty for the CPU itself.
        """
        self._session: onnxruntime.InferenceSession | None = session
        self._run = session.run
        self._inputs = [spec.name for spec in artifact.inputs]
        self._outputs = [*(spec.name for spec in artifact.outputs), *tensors]
        self._device = device

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

    def placement(self) -> Placement:
        """Say which operators the provider leaves to the CPU.

        Raises:
            BackendUnavailableError: this version of onnxruntime does not say it.
        """
        if not self._device or self._session is None:
            return super().placement()
        try:
            parts = self._session.get_provider_graph_assignment_info()
        except AttributeError as error:
            raise BackendUnavailableError(
                "this onnxruntime does not say which operators it leaves to the CPU: install a "
                "newer one"
            ) from error
        left = [node for part in parts if part.ep_name == CPU for node in part.get_nodes()]
        if not left:
            return Placement(self._device)
        nodes = tuple((node.op_type, node.name) for node in left)
        return Placement(self._device, (Fallback("the CPU", nodes, other_device=True),))

    def close(self) -> None:
        """Drop the session."""
        self._run, self._session = _closed, None


def _closed(*_: object) -> list[Array]:
    raise BadInputError("this session is closed")


class OnnxRuntimeBackend:
    """Loads ONNX files for one execution provider; a session that has it not is refused."""

    files = "ort"
    suffix = ".onnx"
    rounds_inputs = False
    parses_apart = False

    def __init__(self, provider: str = CPU, options: Mapping[str, Any] | None = None) -> None:
        """Take a provider.

        Args:
            provider: by ONNX Runtime's name.
            options: of the provider, such as ``{"device_id": 1}``; more than edgedl's own.
        """
        self._provider = provider
        self._options = {**OPTIONS.get(provider, {}), **(options or {})}
        self.label, self.package = PROVIDERS.get(provider, (provider, "onnxruntime"))
        self.on_gpu = provider == CUDA
        self.without_vnni: str | None = "ort_avx2" if provider == CPU else None

    def available(self) -> Availability:
        """Say whether onnxruntime imports, has the provider, and there is what that needs."""
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(False, str(BackendUnavailableError.of(error, self._missing())))
        version = f"onnxruntime {onnxruntime.__version__}"
        if self._provider == CPU:
            return Availability(True, version)
        known = onnxruntime.get_available_providers()
        if self._provider not in known:
            return Availability(
                False, f"{version} has no {self._provider}, it has {', '.join(known)}: "
                f"pip install {self.package} in its place"
            )  # fmt: skip
        try:
            return Availability(True, f"{version} on {self._device()}")
        except BackendUnavailableError as error:
            return Availability(False, f"{self.label}: {error}")

    def _device(self) -> str:
        """Return the device of the provider.

        Raises:
            BackendUnavailableError: it is not there.
        """
        return find_gpu().name if self._provider == CUDA else self._provider

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load an ONNX file; ``threads`` work inside an operator, one operator at a time."""
        device = "" if self._provider == CPU else self._device()
        return OnnxRuntimeSession(self._session(model, artifact, threads), artifact, device=device)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load a copy of an ONNX file whose inner tensors are outputs.

        The integers behind a ``QuantizeLinear`` are what the fused integer operators write, so the
        same operators are fused as without; the runtime's choice of data layouts may differ.
        """
        session = self._session(with_outputs(model, tensors), artifact, 1)
        return OnnxRuntimeSession(session, artifact, tensors)

    def _session(
        self, model: bytes, artifact: Artifact, threads: int
    ) -> "onnxruntime.InferenceSession":
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailableError.of(error, self._missing()) from error
        refuse_external_data(model, artifact.path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY
        if artifact.kind is INT8_WEIGHTS:
            # Such a file computes in float. By default its weights are converted again in every
            # run, which takes longer than the layers themselves; now they are once, when it is
            # loaded.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        providers: list[Any] = [CPU]
        if self._provider != CPU:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            providers = [(self._provider, self._options), CPU]
        try:
            session = onnxruntime.InferenceSession(
                model, options, providers=providers, enable_fallback=False
            )
        except Exception as error:
            # onnxruntime raises a dozen unrelated classes here; each means the file is refused.
            reason = " ".join(str(error).split())
            raise BadInputError(f"onnxruntime refuses {artifact.path}: {reason}") from error
        # Where the provider cannot be made, onnxruntime logs that and takes the CPU.
        found = session.get_providers()
        if self._provider not in found:
            raise BackendUnavailableError(
                f"onnxruntime cannot use {self._provider} here, it would run on {', '.join(found)}"
            )
        _check_names(artifact, session)
        return session

    def _missing(self) -> str:
        if self._provider == CPU:
            return f"onnxruntime is missing: {install_line('ort')}"
        return f"onnxruntime is missing: pip install {self.package}"


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


BACKEND = OnnxRuntimeBackend()
