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
from edgedl.runtime.placement import Fallback, Placement

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

LABEL = "LiteRT"
MAGIC = b"TFL3"
# What the interpreter calls the operators that a delegate has taken, all in one.
DELEGATE = "DELEGATE"


class TFLiteSession(Session):
    """A TFLite file in an interpreter."""

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
        with refusals(self._artifact):
            for index, shape in zip(self._inputs, shapes, strict=True):
                interpreter.resize_tensor_input(index, shape, strict=True)
            interpreter.allocate_tensors()
        self._shapes = shapes

    def placement(self) -> Placement:
        """Say which operators XNNPACK leaves to the interpreter's own, slower kernels."""
        with self._lock:
            own = [] if self._interpreter is None else _not_delegated(self._interpreter)
        if not own:
            return super().placement()
        kernels = Fallback(
            "the interpreter's own kernels", tuple((kind, "") for kind in own), other_device=False
        )
        return Placement("the CPU", (kernels,))

    def close(self) -> None:
        """Drop the interpreter, after the call that runs."""
        with self._lock:
            self._interpreter = None


class LiteRTBackend:
    """Loads TFLite files from memory."""

    label = LABEL
    package = "ai-edge-litert"
    files = "tflite"
    suffix = ".tflite"
    rounds_inputs = True
    parses_apart = False
    on_gpu = False
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
        with refusals(artifact):
            return TFLiteSession(_interpreter(model, threads), artifact)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load a copy of a TFLite file whose inner tensors are outputs.

        XNNPACK computes with the same kernels and writes them out, where it would hide them.
        """
        with refusals(artifact):
            interpreter = _interpreter(_with_outputs(model, tensors), 1)
            known = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
            return TFLiteSession(interpreter, artifact, [known[name] for name in tensors])


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


def _not_delegated(interpreter: "Interpreter") -> list[str]:
    """Return the operators that no delegate has taken.

    An interpreter lists what a delegate has taken beside the delegate: it is all that lies between
    the delegate's outputs and its inputs.
    """
    # What the interpreter itself offers looks up types of each tensor, which takes ten times as
    # long.
    graph = interpreter._interpreter
    kinds = [graph.NodeName(i) for i in range(graph.NumNodes())]
    makers = {
        int(y): i for i, kind in enumerate(kinds) if kind != DELEGATE for y in graph.NodeOutputs(i)
    }
    taken: set[int] = set()
    for delegate in (i for i, kind in enumerate(kinds) if kind == DELEGATE):
        stops = set(graph.NodeInputs(delegate))
        wanted = list(graph.NodeOutputs(delegate))
        while wanted:
            maker = makers.get(wanted.pop())
            if maker is None or maker in taken:
                continue
            taken.add(maker)
            wanted += [x for x in graph.NodeInputs(maker) if x not in stops]
    return [kind for i, kind in enumerate(kinds) if kind != DELEGATE and i not in taken]


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
def refusals(artifact: Artifact, label: str = LABEL) -> Iterator[None]:
    """Raise what an interpreter says of a file as one line.

    Raises:
        BadInputError: the interpreter refuses it.
    """
    try:
        yield
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(f"{label} refuses {artifact.path}: {reason}") from error


def _installed_version() -> str:
    from importlib.metadata import version

    return version("ai-edge-litert")


def _missing() -> str:
    return f"ai-edge-litert is missing: {install_line('tflite')}"


BACKEND = LiteRTBackend()
