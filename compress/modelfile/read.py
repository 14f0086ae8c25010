"""Read the layers of a model file of either format."""

from edgedl.compress.modelfile.layer import FileLayer
from edgedl.compress.modelfile.onnx_layers import read_onnx_layers
from edgedl.compress.modelfile.tflite_layers import read_tflite_layers
from edgedl.runtime.errors import BadInputError


def read_layers(content: bytes, source: str) -> list[FileLayer]:
    """Return the layers of an ONNX or TFLite file, in the order they run.

    Args:
        content: the file.
        source: its name; the ending says which format it is.

    Raises:
        BadInputError: it is neither, or damaged.
        BackendUnavailableError: the package that reads the format is not installed.
    """
    if source.endswith(".tflite"):
        return read_tflite_layers(content, source)
    if source.endswith(".onnx"):
        return read_onnx_layers(content, source)
    raise BadInputError(f"{source} is neither a bundle nor a .onnx or .tflite file")
