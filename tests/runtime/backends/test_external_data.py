"""Weights in other files are found wherever a tensor can be, and nothing else is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_builder import graph, model, value

from edgedl.runtime.backends.external_data import refuse_external_data
from edgedl.runtime.errors import BadInputError

W = np.ones((2, 2), np.float32)


def outside(name: str) -> TensorProto:
    """Return a tensor whose values lie in the file ``weights.bin``."""
    tensor = numpy_helper.from_array(W, name)
    tensor.raw_data = b""
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    return tensor


def product(weight: TensorProto | None, **more: object) -> onnx.ModelProto:
    """Return x @ w, of a weight that is an initializer, or comes from nodes before it."""
    nodes = [*more.pop("nodes", []), helper.make_node("MatMul", ["x", "w"], ["y"])]
    constants = {} if weight is None else {"w": weight}
    return model(graph(nodes, [value("x", [1, 2])], [value("y", [1, 2])], constants), **more)


def branch(tensor: TensorProto) -> onnx.GraphProto:
    return graph(
        [helper.make_node("Identity", ["c"], ["b"])], [], [value("b", [2, 2])], {"c": tensor}
    )


def nested(tensor: TensorProto, levels: int) -> onnx.GraphProto:
    """Return a graph in the branch of an If, in that of another, and so on."""
    inner = branch(tensor)
    for _ in range(levels):
        chosen = helper.make_node(
            "If", ["yes"], ["b"], then_branch=inner, else_branch=branch(numpy_helper.from_array(W))
        )
        inner = graph([chosen], [], [value("b", [2, 2])], {"yes": np.array(True)})
    return inner


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.array([0])), [4])


def function(tensor: TensorProto) -> onnx.FunctionProto:
    made = helper.make_node("Constant", [], ["w"], value=tensor)
    return helper.make_function("own", "weight", [], ["w"], [made], [helper.make_opsetid("", 17)])


def constant(attribute: str, content: object) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.append(helper.make_attribute(attribute, content))
    return product(None, nodes=[node])


PLACES = {
    "initializer": product,
    "constant": lambda t: constant("value", t),
    "list of tensors": lambda t: constant("values", [t]),
    "branch": lambda t: constant("body", nested(t, 0)),
    "branches in branches": lambda t: constant("body", nested(t, 5)),
    "list of graphs": lambda t: constant("bodies", [branch(t)]),
    "sparse constant": lambda t: constant("sparse_value", sparse(t)),
    "function": lambda t: product(
        None,
        nodes=[helper.make_node("weight", [], ["w"], domain="own")],
        domains=["own"],
        functions=[function(t)],
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_other_files_are_refused_wherever_they_are(place: str) -> None:
    refuse_external_data(PLACES[place](numpy_helper.from_array(W, "w")).SerializeToString(), "x")
    with pytest.raises(BadInputError, match=r"x\.onnx keeps weights in other files .* single file"):
        refuse_external_data(PLACES[place](outside("w")).SerializeToString(), "x.onnx")


def test_onnx_runtime_would_read_a_file_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The reason for all this. If it does not any more, this can go.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes((7 * W).tobytes())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(product(outside("w")).SerializeToString(), options)
    (found,) = session.run(None, {"x": np.ones((1, 2), np.float32)})
    assert found.tolist() == [[14, 14]]


def field(number: int, content: bytes | int) -> bytes:
    """Return a field whose number has a bit that parsers drop."""
    key = number << 3 | (0 if isinstance(content, int) else 2) | 1 << 32
    head = bytearray()
    while key > 0x7F:
        head.append(key & 0x7F | 0x80)
        key >>= 7
    body = bytes([content]) if isinstance(content, int) else bytes([len(content)]) + content
    return bytes([*head, key]) + body


def test_a_number_that_a_parser_would_read_as_another_one_is_refused() -> None:
    tensor = field(14, 1)
    with pytest.raises(BadInputError, match="a field of number"):
        refuse_external_data(field(7, field(5, tensor)), "x.onnx")
    with pytest.raises(BadInputError, match="a field of number 0"):
        refuse_external_data(b"\x00\x00", "x.onnx")


def test_a_location_that_a_parser_would_cut_to_elsewhere_is_refused() -> None:
    # 2^32 + 1 in a field of 32 bits.
    tensor = bytes([14 << 3, 0x81, 0x80, 0x80, 0x80, 0x10])
    inside = bytes([5 << 3 | 2, len(tensor)]) + tensor
    with pytest.raises(BadInputError, match="external data"):
        refuse_external_data(bytes([7 << 3 | 2, len(inside)]) + inside, "x.onnx")


def test_a_graph_nested_too_deep_is_refused() -> None:
    content = b""
    for _ in range(300):
        # A graph with a node with an attribute with a graph.
        for number in (6, 5, 1):
            size = len(content)
            varint = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
            content = bytes([number << 3 | 2]) + varint + content
    size = len(content)
    varint = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    with pytest.raises(BadInputError, match="nested deeper than 200 levels"):
        refuse_external_data(bytes([7 << 3 | 2]) + varint + content, "x.onnx")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_raises_nothing_else(data: st.DataObject) -> None:
    content = bytearray(product(outside("w")).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        refuse_external_data(cut, "x.onnx")
    except BadInputError:
        return
    # What is let through has no weights elsewhere, or is no ONNX file to its own parser either.
    try:
        parsed = onnx.load_model_from_string(cut)
    except Exception:
        return
    assert not any(t.data_location == TensorProto.EXTERNAL for t in parsed.graph.initializer)
