"""Refuse ONNX files whose weights lie in other files, without the package onnx.

A runtime that is given the bytes of such a file looks for the others in the current folder. They
would be read without having been verified.

Source: Protocol Buffers documentation, "Encoding", "Message structure"; onnx.proto, the numbers of
fields.
"""

from collections.abc import Iterator

from edgedl.runtime.errors import BadInputError

VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
_WIDTHS = {FIXED_64: 8, FIXED_32: 4}
# Of messages that can hold tensors: the number of a field, and what message it has.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
# Of a tensor: what its data are in, and where they lie; 0 is in the file itself.
_EXTERNAL_DATA, _DATA_LOCATION, _HERE = 13, 14, (0,)
# A graph in an attribute of a node of a graph, and so on.
MOST_LEVELS = 200


class _MalformedError(Exception):
    """Bytes that are no message."""


def refuse_external_data(model: bytes, path: str) -> None:
    """Refuse a model with weights in other files.

    Args:
        model: content of an ONNX file.
        path: what errors call it.

    Raises:
        BadInputError: it has some, or is no ONNX file.
    """
    try:
        found = _has_external_data(memoryview(model), "model", 0)
    except _MalformedError as error:
        raise BadInputError(f"{path} is no ONNX file, or damaged: {error}") from error
    if found:
        raise BadInputError(
            f"{path} keeps weights in other files (external data), which are not verified: save it "
            "as a single file, onnx.save(onnx.load(path), path, save_as_external_data=False)"
        )


def _has_external_data(content: memoryview, kind: str, level: int) -> bool:
    if level > MOST_LEVELS:
        raise _MalformedError(f"its graphs are nested deeper than {MOST_LEVELS} levels")
    for number, value in _fields(content):
        if kind == "tensor":
            elsewhere = number == _DATA_LOCATION and value not in _HERE
            if number == _EXTERNAL_DATA or elsewhere:
                return True
        elif number in _FIELDS[kind] and not isinstance(value, int):
            found = _has_external_data(value, _FIELDS[kind][number], level + 1)
            if found:
                return True
    return False


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message: the number of each, and its varint or its bytes."""
    at, end = 0, len(content)
    while at < end:
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        # Parsers drop what is beyond 32 bits: one number here would be another one there.
        if number == 0 or key >= 1 << 32:
            raise _MalformedError(f"a field of number {number}")
        value: int | memoryview
        if kind == VARINT:
            value, at = _varint(content, at)
        else:
            if kind == LENGTH_DELIMITED:
                size, at = _varint(content, at)
            elif kind in _WIDTHS:
                size = _WIDTHS[kind]
            else:
                raise _MalformedError(f"a field of kind {kind}")
            if size > end - at:
                raise _MalformedError("a field ends behind the file")
            value, at = content[at : at + size], at + size
        yield number, value


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a place, seven bits a byte, and the place behind it."""
    value = 0
    for count in range(10):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at
    raise _MalformedError("a number has no end")
