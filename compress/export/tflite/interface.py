"""Inputs and outputs of a TFLite file, read without its runtime, which may refuse the file."""

import re
from typing import Any

import msgspec

from edgedl.compress.export.tflite.file import TfliteFile
from edgedl.compress.graph.pictures import Pictures
from edgedl.runtime.bundle.layout import Layout
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BadInputError

# Of the metadata in which edgedl's files say which inputs and outputs have another layout than the
# network's: their names and layouts, as JSON.
LAYOUTS = "edgedl.layouts"


def describe_tflite(model: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs of a model, in the order of the graph's.

    Sizes that the file leaves free are None, but for the batch: it is that of the file's example.

    Raises:
        BadInputError: one is of a type that edgedl cannot feed or read, or the metadata that say
            their layouts are damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    loaded = schema.ModelT.InitFromPackedBuf(model, 0)
    graph, layouts = loaded.subgraphs[0], _layouts(loaded)
    types = {number: name.lower() for name, number in vars(schema.TensorType).items()}

    def specs(indices: list[int]) -> tuple[TensorSpec, ...]:
        found = [_spec(graph.tensors[i], types) for i in indices]
        ordered = sorted(found, key=lambda spec: _position(spec.name))
        return tuple(msgspec.structs.replace(s, layout=layouts.get(s.name)) for s in ordered)

    return specs(graph.inputs), specs(graph.outputs)


def write_layouts(model: bytes, pictures: Pictures) -> bytes:
    """Return a file that says which of its inputs and outputs have their channels last."""
    if not (pictures.inputs or pictures.outputs):
        return model
    inputs, outputs = describe_tflite(model)
    names = [inputs[i].name for i in sorted(pictures.inputs)]
    names += [outputs[i].name for i in sorted(pictures.outputs)]
    file = TfliteFile(model)
    file.add_metadata(LAYOUTS, msgspec.json.encode(dict.fromkeys(names, "NHWC")))
    return file.pack()


def _layouts(loaded: Any) -> dict[str, Layout]:
    for entry in loaded.metadata or []:
        if entry.name == LAYOUTS.encode():
            content = bytes(loaded.buffers[entry.buffer].data)
            try:
                return msgspec.json.decode(content, type=dict[str, Layout])
            except msgspec.DecodeError as error:
                raise BadInputError(
                    f"the file's metadata {LAYOUTS} are damaged: {error}"
                ) from error
    return {}


def _spec(tensor: Any, types: dict[int, str]) -> TensorSpec:
    name, dtype = tensor.name.decode(), types[tensor.type]
    example = [] if tensor.shape is None else [int(d) for d in tensor.shape]
    signature = example if tensor.shapeSignature is None else list(tensor.shapeSignature)
    if len(signature) != len(example):
        signature = example
    free = [axis > 0 and size < 0 for axis, size in enumerate(signature)]
    shape = tuple(None if f else d for f, d in zip(free, example, strict=True))
    grid = tensor.quantization
    if grid is None or grid.scale is None or not len(grid.scale):
        return TensorSpec.of(name, shape, dtype)
    return TensorSpec.of(name, shape, dtype, float(grid.scale[0]), int(grid.zeroPoint[0]))


def _position(name: str) -> int:
    """Return the argument number in names such as ``serving_default_args_0``."""
    found = re.search(r"(?:args|output)_(\d+)", name)
    return int(found.group(1)) if found else 0
