"""A float ONNX file as a torch module that everything else can work on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from edgedl.compress.adapters.onnx.network import OnnxNetwork, check_inputs
from edgedl.compress.adapters.onnx.values import NotImportedError
from edgedl.compress.modelfile.onnx_file import open_onnx
from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError

OLDEST, NEWEST = 7, 23
EQUAL_WITHIN = 1e-4
LARGEST_BYTES = 2**31 - 1


def import_onnx(path: Path) -> OnnxNetwork:
    """Read a float ONNX file, with its weights in it or in files beside it.

    Raises:
        BadInputError: it is no such file, or has something that is not imported; the message says
            what.
    """
    try:
        return OnnxNetwork(_open(path))
    except NotImportedError as error:
        raise BadInputError(f"{path}: {error}") from error


def check_equal(network: OnnxNetwork, path: Path, inputs: Sequence[Array]) -> None:
    """Compare with ONNX Runtime on some samples.

    Args:
        network: of the file.
        path: the file.
        inputs: an array [N, ...] each; N is at least 2, so that the batch is shown to be free.

    Raises:
        BadInputError: an output differs by more than 1e-4 of its largest value; the first node
            whose value differs is named.
    """
    with torch.no_grad():
        found = [y.numpy() for y in network(*(torch.from_numpy(x) for x in inputs)).values()]
    expected = _by_onnxruntime(path, inputs, network.output_names)
    for name, a, b in zip(network.output_names, found, expected, strict=True):
        if not _near(a, b):
            raise BadInputError(
                f"{path}: output '{name}' differs from what ONNX Runtime computes by "
                f"{_distance(a, b)}; {_first_difference(network, path, inputs)}"
            )


def _open(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise BadInputError(f"there is no file '{path}'")
    if path.stat().st_size > LARGEST_BYTES:
        raise BadInputError(f"{path} has more than 2 GB, which is no ONNX file")
    model = open_onnx(path.read_bytes(), str(path), path.parent)
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not OLDEST <= version <= NEWEST:
        raise BadInputError(
            f"{path} is of operator set {version}, edgedl reads {OLDEST} to {NEWEST}: convert it "
            "with onnx.version_converter, or export it again"
        )
    check_inputs(model)
    return model


def _by_onnxruntime(
    model: Path | bytes, inputs: Sequence[Array], wanted: Sequence[str]
) -> list[Array]:
    """Run a file, or its content, on samples, in the batches that it fixes if it does."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
        )
        given = session.get_inputs()
        fixed = next((i.shape[0] for i in given if i.shape and isinstance(i.shape[0], int)), 0)
        step = fixed or len(inputs[0])
        parts = [
            session.run(
                list(wanted),
                {
                    i.name: x[at : at + step].astype(_TYPES[i.type], copy=False)
                    for i, x in zip(given, inputs, strict=True)
                },
            )
            for at in range(0, len(inputs[0]), step)
        ]
    except Exception as error:
        # ONNX Runtime raises classes of its own.
        first = str(error).strip().partition("\n")[0]
        raise BadInputError(f"ONNX Runtime cannot run the file: {first}") from error
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


_TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}  # fmt: skip


def _near(a: Array, b: Array) -> bool:
    if a.shape != b.shape:
        return False
    scale = max(1.0, float(np.abs(b).max(initial=0)))
    return bool(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0)
                <= EQUAL_WITHIN * scale)  # fmt: skip


def _distance(a: Array, b: Array) -> str:
    if a.shape != b.shape:
        return f"its shape, {list(a.shape)} and not {list(b.shape)}"
    return f"{np.abs(a.astype(np.float64) - b.astype(np.float64)).max():.2g}"


def _first_difference(network: OnnxNetwork, path: Path, inputs: Sequence[Array]) -> str:
    """Name the first node whose value is another than ONNX Runtime's."""
    sample = [x[:1] for x in inputs]
    with torch.no_grad():
        values: dict[str, Tensor] = network.values_of([torch.from_numpy(x) for x in sample])
    model = _open(path)
    have = {o.name for o in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in values if name not in have
    )
    found = _by_onnxruntime(model.SerializeToString(), sample, list(values))
    for (name, value), other in zip(values.items(), found, strict=True):
        if not _near(value.numpy(), np.asarray(other)):
            node = network.node_of(name)
            return f"the first node that differs is '{node.name}' ({node.operator})"
    return "every node gives the same for one sample, so the file computes batches otherwise"
