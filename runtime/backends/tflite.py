"""LiteRT (the successor of tflite-runtime) on the CPU, with its XNNPACK kernels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from edgedl.runtime.backend import Array, Availability, Session
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

MAGIC = b"TFL3"


class LiteRTSession(Session):
    """A TFLite file in the LiteRT interpreter."""

    def __init__(
        self, interpreter: "Interpreter", artifact: Artifact, tensors: Sequence[int] = ()
    ) -> None:
        """Keep tensor indices in manifest order, ``tensors`` behind them."""
        self._interpreter: Interpreter | None = interpreter
        # An interpreter has one place for each input and output, whoever calls it.
        self._lock = Lock()
        inputs = {d["name"]: d["index"] for d in interpreter.get_input_details()}
        outputs = {d["name"]: d["index"] for d in interpreter.get_output_details()}
        self._inputs = [inputs[spec.name] for spec in artifact.inputs]
        self._outputs = [*(outputs[spec.name] for spec in artifact.outputs), *tensors]
        self._artifact = artifact
        self._sizes_are_free = any(None in spec.shape for spec in artifact.inputs)
        self._shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference; any size where the shape leaves it free."""
        with self._lock:
            interpreter = self._interpreter
            if interpreter is None:
                raise BadInputError("this session is closed")
            if self._sizes_are_free:
                self._resize(interpreter, [x.shape for x in inputs])
            for index, value in zip(self._inputs, inputs, strict=True):
                interpreter.set_tensor(index, value)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._outputs]

    def _resize(self, interpreter: "Interpreter", shapes: list[tuple[int, ...]]) -> None:
        """Make room for inputs of other sizes than the last ones."""
        if shapes == self._shapes:
            return
        with _refusals(self._artifact):
            for index, shape in zip(self._inputs, shapes, strict=True):
                interpreter.resize_tensor_input(index, shape, strict=True)
            interpreter.allocate_tensors()
        self._shapes = shapes

    def close(self) -> None:
        """Drop the interpreter, after the call that runs."""
        with self._lock:
            self._interpreter = None


class LiteRTBackend:
    """Loads TFLite files from memory."""

    label = "LiteRT"
    package = "ai-edge-litert"
    files = "tflite"
    suffix = ".tflite"
    rounds_inputs = True
    without_vnni: str | None = None

    def available(self) -> Availability:
        """Say whether ai-edge-litert imports."""
        try:
            import ai_edge_litert
            import ai_edge_litert.interpreter
        except ImportError as error:
            return Availability(False, str(BackendUnavailableError.of(error, _missing())))
        version = getattr(ai_edge_litert, "__version__", None) or _installed_version()
        return Availability(True, f"ai-edge-litert {version}")

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load a TFLite file."""
        with _refusals(artifact):
            return LiteRTSession(_interpreter(model, threads), artifact)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load a copy of a TFLite file whose inner tensors are outputs.

        XNNPACK computes with the same kernels and writes them out, where it would hide them.
        """
        with _refusals(artifact):
            interpreter = _interpreter(_with_outputs(model, tensors), 1)
            known = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
            return LiteRTSession(interpreter, artifact, [known[name] for name in tensors])


def _interpreter(model: bytes, threads: int) -> "Interpreter":
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise BackendUnavailableError.of(error, _missing()) from error
    # From verified memory: CompiledModel.from_file crashes on damaged files.
    with quiet():
        interpreter = Interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


def _with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise BackendUnavailableError.of(error, _missing()) from error
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = tree.subgraphs[0]
    index = {tensor.name.decode(errors="replace"): i for i, tensor in enumerate(graph.tensors)}
    shown = {*graph.inputs, *graph.outputs}
    inner = [index[name] for name in names]
    graph.outputs = [*graph.outputs, *(i for i in dict.fromkeys(inner) if i not in shown)]
    # The schema brings its own reader and writer of the format along.
    builder = schema.flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), MAGIC)
    return bytes(builder.Output())


@contextmanager
def _refusals(artifact: Artifact) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(f"LiteRT refuses {artifact.path}: {reason}") from error


def _installed_version() -> str:
    from importlib.metadata import version

    return version("ai-edge-litert")


def _missing() -> str:
    return f"ai-edge-litert is missing: {install_line('tflite')}"


BACKEND = LiteRTBackend()
