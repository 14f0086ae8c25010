"""Write a TFLite model that was changed in memory."""

from collections.abc import Callable
from typing import Any

from edgedl.runtime.backends.tflite import MAGIC

# The runtime reads constants with vector instructions.
ALIGNMENT = 16


def pack_tflite(model: Any) -> bytes:
    """Return a ``ModelT`` of ``ai_edge_litert.schema_py_generated`` as a file."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.Pack = _aligned(buffer, schema)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), MAGIC)
    return bytes(builder.Output())


def _aligned(buffer: Any, schema: Any) -> Callable[[Any], int]:
    """Return a ``Pack`` that does what the schema asks for and its generated program forgets."""

    def pack(builder: Any) -> int:
        content = bytes(buffer.data)
        builder.Prep(ALIGNMENT, len(content))
        data = builder.CreateByteVector(content)
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))

    return pack
