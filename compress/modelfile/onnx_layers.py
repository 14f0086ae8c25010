"""The layers of an ONNX file. Quantize/dequantize pairs are told as grids, not as operators."""

from edgedl.compress.modelfile.layer import FileLayer
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line


def read_onnx_layers(content: bytes, source: str) -> list[FileLayer]:
    """Return the layers of a model; those of a branch or a loop's body stand behind its operator.

    Args:
        content: the file.
        source: its name, for messages.

    Raises:
        BackendUnavailableError: the package onnx is not installed.
        BadInputError: the file is not a whole ONNX model, or not all of it.
    """
    try:
        from edgedl.compress.modelfile.onnx_file import open_onnx
        from edgedl.compress.modelfile.onnx_reader import OnnxReader
        from edgedl.compress.modelfile.onnx_shapes import infer_shapes, with_one_sample
        from edgedl.compress.modelfile.onnx_standard_form import in_standard_form
    except ImportError as error:
        raise BackendUnavailableError.of(
            error, f"onnx is missing, it reads such files: {install_line('compress')}"
        ) from error
    model = open_onnx(content, source)
    try:
        shadow = in_standard_form(model)
        shapes, sizes = infer_shapes(shadow), infer_shapes(with_one_sample(shadow))
        return OnnxReader(model.graph, shapes.graph, sizes.graph).layers()
    except Exception as error:
        # Shape inference raises classes of its own; a checked file can hold operators of no sense.
        first = str(error).strip().partition("\n")[0]
        raise BadInputError(f"{source} is not a whole ONNX model: {first}") from error
