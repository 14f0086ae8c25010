"""tflite-runtime, the package before LiteRT: for the files that it computes right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedl.runtime.backend import Availability, Session
from edgedl.runtime.backends.quiet import quiet
from edgedl.runtime.backends.tflite import TFLiteSession, refusals
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line

if TYPE_CHECKING:
    from tflite_runtime.interpreter import Interpreter

LABEL = "tflite-runtime"
# They turn integers into numbers; every other operator computes with what it reads.
CONVERSIONS = ("DEQUANTIZE", "QUANTIZE", "CAST")


class TFLiteRuntimeBackend:
    """Loads TFLite files into the interpreter of tflite-runtime.

    Its last version, 2.14 of 2023, reads some newer files and computes something else, without a
    word: layers of float inputs and int8 weights with a scale for each channel, 4-bit weights, and
    16-bit activations. It gets none of them.
    """

    label = LABEL
    package = "tflite-runtime"
    files = "tflite"
    suffix = ".tflite"
    rounds_inputs = True
    parses_apart = False
    on_gpu = False
    without_vnni: str | None = None

    def available(self) -> Availability:
        """Say whether tflite-runtime imports, and fits the numpy that is here."""
        try:
            import tflite_runtime
            import tflite_runtime.interpreter
        except ImportError as error:
            return Availability(False, str(BackendUnavailableError.of(error, _missing())))
        version = f"tflite-runtime {tflite_runtime.__version__}"
        if int(np.__version__.partition(".")[0]) > 1:
            return Availability(
                False, f"{version} needs numpy 1, numpy {np.__version__} is installed: "
                f"pip install 'numpy<2', or {install_line('tflite')}"
            )  # fmt: skip
        return Availability(True, version)

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load a TFLite file.

        Raises:
            BackendUnavailableError: the interpreter cannot be used here.
            BadInputError: it refuses the file, or would compute something else.
        """
        availability = self.available()
        if not availability.usable:
            raise BackendUnavailableError(availability.detail)
        from tflite_runtime.interpreter import Interpreter

        with refusals(artifact, LABEL), quiet():
            interpreter = Interpreter(model_content=model, num_threads=threads)
        wrong = _computed_wrong(interpreter)
        if wrong is not None:
            raise BadInputError(
                f"tflite-runtime computes {artifact.path} wrong: {wrong}; LiteRT does not: "
                f"{install_line('tflite')}"
            )
        with refusals(artifact, LABEL), quiet():
            interpreter.allocate_tensors()
            return TFLiteSession(interpreter, artifact)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load nothing: changing a file takes LiteRT's own description of the format."""
        raise BadInputError(f"tflite-runtime shows no tensors from inside of {artifact.path}")


def _computed_wrong(interpreter: "Interpreter") -> str | None:
    """Return what of a file the interpreter would compute wrong, before anything is computed."""
    types: dict[int, Any] = {d["index"]: d["dtype"] for d in interpreter.get_tensor_details()}
    for operator in interpreter._get_ops_details():
        kind = operator["op_name"]
        read = {np.dtype(types[int(i)]).name for i in operator["inputs"] if int(i) in types}
        if kind not in CONVERSIONS and {"float32", "int8"} <= read:
            return f"{kind} of float inputs and int8 weights"
        if "int16" in read:
            return f"{kind} of 16-bit integers"
    return None


def _missing() -> str:
    install = "pip install tflite-runtime 'numpy<2'"
    return f"tflite-runtime is missing: {install}, or its successor: {install_line('tflite')}"


BACKEND = TFLiteRuntimeBackend()
