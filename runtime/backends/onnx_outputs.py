"""Make inner values of an ONNX file its outputs, without the package onnx, which devices lack.

A protobuf message that comes twice is merged, its repeated fields joined; so more outputs are
appended to the file as a second piece of its graph.

Source: Protocol Buffers documentation, "Encoding", "Last one wins" and "Length-delimited records";
onnx.proto: ModelProto.graph is field 7, GraphProto.output 12, ValueInfoProto.name 1.
"""

from collections.abc import Sequence

_MODEL_GRAPH, _GRAPH_OUTPUT, _VALUE_NAME = 7, 12, 1
_LENGTH_DELIMITED = 2


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    r"""Return a model that gives the named values behind its own; their types are inferred.

    >>> with_outputs(b"", ["y"])
    b':\x05b\x03\n\x01y'
    """
    outputs = [_field(_GRAPH_OUTPUT, _field(_VALUE_NAME, name.encode())) for name in names]
    return model + _field(_MODEL_GRAPH, b"".join(outputs)) if names else model


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return seven bits a byte, the lowest first; the top bit says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
