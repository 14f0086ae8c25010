"""Inputs and outputs of a TFLite file, read without its runtime, which may refuse the file."""

import re
from typing import Any

from edgedl.runtime.bundle.manifest import TensorSpec


def describe_tflite(model: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs of a model, in the order of the graph's.

    Sizes that the file leaves free are None, but for the batch: it is that of the file's example.

    Raises:
        BadInputError: one is of a type that edgedl cannot feed or read.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs[0]
    types = {number: name.lower() for name, number in vars(schema.TensorType).items()}

    def specs(indices: list[int]) -> tuple[TensorSpec, ...]:
        found = [_spec(graph.tensors[i], types) for i in indices]
        return tuple(sorted(found, key=lambda spec: _position(spec.name)))

    return specs(graph.inputs), specs(graph.outputs)


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
