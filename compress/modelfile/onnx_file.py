"""Open somebody else's ONNX file: whole, and all in one file, or said why not."""

from pathlib import Path

import onnx
from onnx.external_data_helper import load_external_data_for_model
from onnx.inliner import inline_local_functions

from edgedl.compress.modelfile.onnx_constants import store_constants
from edgedl.compress.modelfile.onnx_graphs import every_graph
from edgedl.compress.modelfile.onnx_shapes import own_inputs
from edgedl.runtime.errors import BadInputError

# Version of the format that lets weights be no inputs.
FIRST_WITHOUT_STORED_INPUTS = 4


def open_onnx(content: bytes, source: str, folder: Path | None = None) -> onnx.ModelProto:
    """Return a model with its constants as initializers and its own functions written out.

    Args:
        content: the file.
        source: its name, for messages.
        folder: where files with its weights may lie; None takes no other file.

    Raises:
        BadInputError: it is not a whole ONNX model, or keeps its weights in another file.
    """
    try:
        model = onnx.load_from_string(content)
        outside = _other_file(model.graph)
        if outside is not None and folder is not None:
            _read_beside(model, folder)
            outside = None
        if outside is None:
            _check(model)
            _drop_stored_inputs(model)
            return store_constants(inline_local_functions(model) if model.functions else model)
    except BadInputError as error:
        raise BadInputError(f"{source}: {error}") from error
    except Exception as error:
        # Protobuf and the checker each raise classes of their own.
        first = str(error).strip().partition("\n")[0]
        raise BadInputError(f"{source} is not a whole ONNX model: {first}") from error
    raise BadInputError(
        f"{source} keeps its weights in another file, {outside}: save it as one file, with "
        "onnx.save(onnx.load(...), ...)"
    )


def _other_file(graph: onnx.GraphProto) -> str | None:
    """Return the name of another file in which a model keeps its tensors, if there is one."""
    outside = onnx.TensorProto.EXTERNAL
    tensors = [t for part in every_graph(graph) for t in part.initializer]
    kept = next((t for t in tensors if t.data_location == outside), None)
    if kept is None:
        return None
    return next((str(e.value) for e in kept.external_data if e.key == "location"), "")


def _read_beside(model: onnx.ModelProto, folder: Path) -> None:
    """Read the weights that lie in files of one folder.

    Raises:
        BadInputError: a file is not in that folder, or is no plain file.
    """
    outside = onnx.TensorProto.EXTERNAL
    for graph in every_graph(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location != outside:
                continue
            place = next((str(e.value) for e in tensor.external_data if e.key == "location"), "")
            path = folder / place
            inside = path.resolve().is_relative_to(folder.resolve())
            if not place or not inside or path.is_symlink() or not path.is_file():
                raise BadInputError(
                    f"the weights '{tensor.name}' lie in '{place}', which is no file beside it"
                )
    load_external_data_for_model(model, str(folder))


def _drop_stored_inputs(model: onnx.ModelProto) -> None:
    """Leave the weights out of the inputs, among which older files list them."""
    given = own_inputs(model.graph)
    if len(given) < len(model.graph.input):
        kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in given]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, FIRST_WITHOUT_STORED_INPUTS)


def _check(model: onnx.ModelProto) -> None:
    """Raise what ONNX's checker does, but for outputs of any shape: runtimes take them."""
    tensors = [v.type.tensor_type for v in model.graph.output if v.type.HasField("tensor_type")]
    without = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in without:
        tensor.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    finally:
        for tensor in without:
            tensor.ClearField("shape")
