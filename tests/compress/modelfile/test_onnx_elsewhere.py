"""Multiply-accumulates and grids of ONNX files that other tools wrote: right, or unknown."""

import json

import numpy as np
import onnx
import pytest
from command import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_builder import graph, model, value

from edgedl.compress.modelfile.align import align
from edgedl.compress.modelfile.layer import FileLayer, work_of
from edgedl.compress.modelfile.read import read_layers
from edgedl.runtime.errors import BadInputError
from edgedl.tools.bench.loose_file import precision_of

node = helper.make_node
W = np.ones((16, 8), np.float32)


def layers(made: onnx.GraphProto, **more: object) -> list[FileLayer]:
    return read_layers(model(made, **more).SerializeToString(), "f.onnx")


def convolution(*sizes: object, declared: object = None) -> onnx.GraphProto:
    """Return a 3x3 convolution of 3 to 16 channels, padded."""
    return graph(
        [node("Conv", ["x", "w"], ["y"], "conv", pads=[1, 1, 1, 1])],
        [value("x", sizes)],
        [value("y", declared or [sizes[0], 16, *sizes[2:]])],
        {"w": np.ones((16, 3, 3, 3), np.float32)},
    )


@pytest.mark.parametrize(
    ("sizes", "macs"),
    [
        ((1, 3, 8, 6), 432 * 48),
        (("n", 3, 8, 6), 432 * 48),
        ((-1, 3, 8, 6), 432 * 48),
        ((None, 3, 8, 6), 432 * 48),
        (("n", 3, "height", "width"), None),
        ((-1, 3, -1, -1), None),
        ((1, 3, -1, 6), None),
        ((None, 3, 8, None), None),
        ((0, 3, 8, 6), 0),
    ],
)
def test_free_sizes_are_not_counted_as_one(sizes: tuple[object, ...], macs: int | None) -> None:
    (layer,) = layers(convolution(*sizes))
    assert layer.macs == macs
    wanted = [None if isinstance(s, str) or s in (None, -1) else s for s in sizes]
    assert list(layer.shape) == [wanted[0], 16, *wanted[2:]]


@settings(deadline=None)
@given(
    free=st.sets(st.integers(0, 3)),
    how=st.sampled_from([-1, None, "named"]),
    stride=st.integers(1, 3),
    height=st.integers(3, 9),
)
def test_any_mix_of_free_axes_is_right_or_unknown(
    free: set[int], how: object, stride: int, height: int
) -> None:
    sizes = [1, 3, height, 7]
    shape = [
        (f"axis_{i}" if how == "named" else how) if i in free and i != 1 else size
        for i, size in enumerate(sizes)
    ]
    weights = {"w": np.ones((4, 3, 3, 3), np.float32), "v": np.ones((4, 5), np.float32)}
    nodes = [
        node("Conv", ["x", "w"], ["c"], strides=[stride, stride]),
        node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        node("MatMul", ["t", "v"], ["y"]),
    ]
    made = graph(nodes, [value("x", shape)], [value("y", [None, None, None, 5])], weights)
    places = ((height - 3) // stride + 1) * ((7 - 3) // stride + 1)
    right = {"Conv": places * 4 * 27, "MatMul": places * 20}
    unknown = bool(free & {2, 3})
    for layer in layers(made):
        assert layer.macs == (
            None if unknown and layer.operator in right else right.get(layer.operator, 0)
        )


def test_the_axis_of_samples_is_the_one_that_is_called_so() -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    made = graph(nodes, [value("x", ["time", "batch_size", 16])], [value("y", None)], {"w": W})
    assert layers(made)[0].macs is None
    made = graph(nodes, [value("x", [5, "batch_size", 16])], [value("y", None)], {"w": W})
    assert layers(made)[0].macs == 5 * 128


def test_inputs_of_different_length_are_not_one_sample_each() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "first"),
        node("MatMul", ["z", "w"], ["b"], "second"),
    ]
    for name, macs in (("m", None), ("n", 128), (-1, 128)):
        inputs = [value("x", ["n", 16]), value("z", [name, 16])]
        made = graph(nodes, inputs, [value("a", None), value("b", None)], {"w": W})
        assert [layer.macs for layer in layers(made)] == [128, macs]


def branch(name: str, columns: int = 8) -> onnx.GraphProto:
    """Return a product of the outer x with a weight of its own."""
    nodes = [node("MatMul", ["x", f"w_{name}"], [f"y_{name}"], f"product_{name}")]
    weights = {f"w_{name}": np.ones((16, columns), np.float32)}
    return graph(nodes, [], [value(f"y_{name}", ["n", columns])], weights, name)


@pytest.mark.parametrize(("columns", "macs"), [(8, 128), (4, None)])
def test_branches_are_shown_and_counted_once(edgedl: Run, tmp_path, columns, macs) -> None:
    nodes = [
        node("If", ["f"], ["y"], "if", then_branch=branch("a"), else_branch=branch("b", columns))
    ]
    inputs = [value("f", [], TensorProto.BOOL), value("x", ["n", 16])]
    made = graph(nodes, inputs, [value("y", ["n", None])])
    found = {layer.name: layer for layer in layers(made)}
    assert set(found) == {"if", "if/then_branch/product_a", "if/else_branch/product_b"}
    assert found["if/then_branch/product_a"].macs == 128
    assert found["if/then_branch/product_a"].inside == "if/then_branch"
    assert found["if/else_branch/product_b"].macs == 16 * columns
    assert found["if"].macs == macs
    assert work_of(found.values()).total == macs
    onnx.save(model(made), tmp_path / "f.onnx")
    done = edgedl("inspect", tmp_path / "f.onnx")
    assert done.returncode == 0, done.stderr
    said = "128 MACs" if macs else "0 MACs, without those of 1 layer where they are unknown"
    assert done.stdout.rstrip().endswith(f"bytes of constants, {said}")


def loop(rounds: object, go_on: str = "true", start: str = "") -> list[FileLayer]:
    """Return the layers of a loop over a product [16, 16] of the state."""
    nodes = [node("MatMul", ["state", "w"], ["next"], "step")]
    stored: dict[str, object] = {}
    if go_on == "true":
        stored["stays"] = np.bool_(True)
    elif go_on == "same":
        nodes.append(node("Identity", ["cond"], ["stays"]))
    else:
        nodes += [
            node("ReduceSum", ["next"], ["sum"], keepdims=0),
            node("Greater", ["sum", "zero"], ["stays"]),
        ]
        stored["zero"] = np.float32(0)
    body = graph(
        nodes,
        [
            value("i", [], TensorProto.INT64),
            value("cond", [], TensorProto.BOOL),
            value("state", [1, 16]),
        ],
        [value("stays", [], TensorProto.BOOL), value("next", [1, 16])],
        stored,
    )
    constants = {"w": np.ones((16, 16), np.float32), "yes": np.bool_(True)}
    inputs = [value("x", [1, 16])]
    if isinstance(rounds, int):
        constants["rounds"] = np.int64(rounds)
    else:
        inputs.append(value("rounds", [], TensorProto.INT64))
    nodes = [node("Loop", ["rounds", start, "x"], ["y"], "loop", body=body)]
    return layers(graph(nodes, inputs, [value("y", [1, 16])], constants))


@pytest.mark.parametrize(
    ("rounds", "go_on", "start", "macs"),
    [
        (7, "true", "", 7 * 256),
        (7, "same", "yes", 7 * 256),
        (0, "true", "yes", 0),
        (7, "computed", "", None),
        ("given", "true", "", None),
    ],
)
def test_a_loop_counts_its_rounds_where_they_are_stored(rounds, go_on, start, macs) -> None:
    found = loop(rounds, go_on, start)
    assert (found[0].operator, found[0].macs) == ("Loop", macs)
    assert [x.macs for x in found if x.name == "loop/body/step"] == [256]
    assert work_of(found).total == macs


@pytest.mark.parametrize(("steps", "macs"), [(5, 5 * 256), ("steps", None)])
def test_a_scan_counts_its_steps(steps: object, macs: int | None) -> None:
    body = graph(
        [node("MatMul", ["state", "w"], ["next"]), node("Add", ["next", "row"], ["out"])],
        [value("state", [1, 16]), value("row", [1, 16])],
        [value("next", [1, 16]), value("out", [1, 16])],
    )
    made = graph(
        [node("Scan", ["h", "x"], ["last", "y"], "scan", body=body, num_scan_inputs=1)],
        [value("h", [1, 16]), value("x", [steps, 1, 16])],
        [value("last", [1, 16]), value("y", [steps, 1, 16])],
        {"w": np.ones((16, 16), np.float32)},
    )
    found = layers(made)
    # Only the first axis of the first input is that of samples.
    assert found[0].macs == macs


def test_an_activation_is_no_part_of_what_a_branch_reads_too() -> None:
    inner = graph([node("Relu", ["m"], ["a"])], [], [value("a", [1, 8])])
    other = graph([node("Neg", ["m"], ["b"])], [], [value("b", [1, 8])])
    nodes = [
        node("MatMul", ["x", "w"], ["m"], "outer"),
        node("Relu", ["m"], ["r"], "after"),
        node("If", ["f"], ["y"], "if", then_branch=inner, else_branch=other),
    ]
    inputs = [value("f", [], TensorProto.BOOL), value("x", [1, 16])]
    found = layers(graph(nodes, inputs, [value("r", [1, 8]), value("y", [1, 8])], {"w": W}))
    # The branch reads what the product gives, so the ReLU is no part of it.
    assert [x.operator for x in found] == ["MatMul", "Relu", "If", "Neg", "Relu"]
    assert found[2].macs == 0


def test_a_branch_inside_a_branch() -> None:
    inner = node("If", ["f"], ["i"], "inner", then_branch=branch("a"), else_branch=branch("b"))
    outer = graph([inner], [], [value("i", ["n", 8])])
    other = graph([node("Identity", ["z"], ["o"])], [], [value("o", ["n", 8])])
    nodes = [node("If", ["f"], ["y"], "if", then_branch=outer, else_branch=other)]
    inputs = [value("f", [], TensorProto.BOOL), value("x", ["n", 16]), value("z", ["n", 8])]
    found = {x.name: (x.macs, x.inside) for x in layers(graph(nodes, inputs, [value("y", None)]))}
    assert found["if"] == (None, "")
    assert found["if/then_branch/inner"] == (128, "if/then_branch")
    deepest = "if/then_branch/inner/else_branch"
    assert found[f"{deepest}/product_b"] == (128, deepest)


def test_functions_of_a_model_are_looked_into() -> None:
    body = [node("MatMul", ["a", "b"], ["c"]), node("Relu", ["c"], ["d"])]
    function = helper.make_function(
        "mine", "Dense", ["a", "b"], ["d"], body, [helper.make_opsetid("", 17)]
    )
    nodes = [node("Dense", ["x", "w"], ["y"], domain="mine")]
    made = graph(nodes, [value("x", ["n", 16])], [value("y", ["n", 8])], {"w": W})
    (layer,) = layers(made, domains=["mine"], functions=[function])
    assert (layer.operator, layer.macs) == ("MatMul+Relu", 128)


def test_what_no_one_here_knows_is_unknown() -> None:
    nodes = [
        node("Mystery", ["x"], ["h"], "odd", domain="somebody.else"),
        node("MatMul", ["h", "w"], ["m"], "behind"),
        node("Add", ["m", "m"], ["y"], "sum"),
    ]
    found = layers(
        graph(nodes, [value("x", [1, 16])], [value("y", [1, 8])], {"w": W}),
        domains=["somebody.else"],
    )
    assert [x.macs for x in found] == [None, None, 0]
    assert work_of(found).describe() == "0 MACs, without those of 2 layers where they are unknown"


def test_weights_that_are_computed_count() -> None:
    nodes = [
        node("Mul", ["g", "v"], ["w"]),
        node("Conv", ["x", "w", "b"], ["c"], "conv"),
        node("Transpose", ["u"], ["t"]),
        node("Flatten", ["c"], ["f"]),
        node("Gemm", ["f", "t"], ["y"], "gemm"),
    ]
    constants = {
        "g": np.ones((4, 1, 1, 1), np.float32),
        "v": np.ones((4, 3, 3, 3), np.float32),
        "b": np.ones(4, np.float32),
        "u": np.ones((7, 16), np.float32),
    }
    made = graph(nodes, [value("x", ["n", 3, 4, 4])], [value("y", ["n", 7])], constants)
    found = {x.name: x.macs for x in layers(made)}
    assert (found["conv"], found["gemm"]) == (4 * 4 * 27, 16 * 7)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_products_in_every_order_of_axes(first: int, second: int) -> None:
    nodes = [node("Gemm", ["a", "b"], ["y"], transA=first, transB=second)]
    shapes = [[5, 3] if first else [3, 5], [7, 5] if second else [5, 7]]
    made = graph(nodes, [value("a", shapes[0]), value("b", shapes[1])], [value("y", [3, 7])])
    assert layers(made)[0].macs == 3 * 5 * 7


@pytest.mark.parametrize(
    ("equation", "macs"),
    [
        ("bij,bjk->bik", 3 * 5 * 7 * 2),
        ("bij,bij->bij", 0),
        ("bij->b", 0),
        ("...ij,...jk->...ik", None),
    ],
)
def test_sums_of_products_by_equation(equation: str, macs: int | None) -> None:
    shapes = {"bij": [2, 3, 5], "bjk": [2, 5, 7], "...ij": [2, 3, 5], "...jk": [2, 5, 7]}
    names = equation.partition("->")[0].split(",")
    inputs = [value(f"x{i}", shapes[name]) for i, name in enumerate(names)]
    nodes = [node("Einsum", [x.name for x in inputs], ["y"], equation=equation)]
    assert layers(graph(nodes, inputs, [value("y", None)]))[0].macs == macs


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_count_every_step(kind: str, gates: int) -> None:
    constants = {
        "w": np.ones((1, gates * 6, 5), np.float32),
        "r": np.ones((1, gates * 6, 6), np.float32),
    }
    for steps, macs in ((9, 9 * gates * 6 * 11), ("steps", None)):
        nodes = [node(kind, ["x", "w", "r"], ["y"], hidden_size=6)]
        inputs = [value("x", [steps, "batch", 5])]
        made = graph(nodes, inputs, [value("y", None)], constants)
        assert layers(made)[0].macs == macs


def blocked(scale: type, zero_points: bool) -> onnx.GraphProto:
    """Return a product with an int4 weight [64, 16], a scale for every 32 inputs."""
    constants: dict[str, object] = {
        "w": helper.make_tensor("w", TensorProto.INT4, [64, 16], [3] * 1024),
        "s": np.full((2, 16), 0.25, scale),
    }
    names = ["w", "s"]
    if zero_points:
        constants["z"] = helper.make_tensor("z", TensorProto.INT4, [2, 16], [-2] * 32)
        names.append("z")
    kind = TensorProto.FLOAT if scale is np.float32 else TensorProto.FLOAT16
    nodes = [
        node("DequantizeLinear", names, ["d"], axis=0, block_size=32),
        node("MatMul", ["x", "d"], ["y"], "product"),
    ]
    return graph(nodes, [value("x", ["n", 64], kind)], [value("y", ["n", 16], kind)], constants)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("scale", [np.float32, np.float16])
def test_int4_weights_in_blocks(scale: type, zero_points: bool) -> None:
    (layer,) = layers(blocked(scale, zero_points), opset=21)
    assert layer.weight is not None
    assert (layer.weight.dtype, layer.weight.block_size) == ("int4", 32)
    assert layer.weight.scales == (0.25,) * 32
    assert layer.weight.zero_points == (-2 if zero_points else 0,) * 32
    assert (layer.weight_bytes, layer.macs) == (512, 1024)
    assert layer.weight.describe() == "int4 per block of 32 (32), 0.25 to 0.25"
    assert precision_of([layer], "ort").name == "int4_weights"


@pytest.mark.parametrize("zero_points", [False, True])
def test_products_of_packed_blocks(zero_points: bool) -> None:
    # 3 blocks of 32 for each of 5 outputs; a row of zero points is padded to a whole byte.
    constants: dict[str, object] = {
        "w": np.zeros((5, 3, 16), np.uint8),
        "s": np.arange(1, 16, dtype=np.float32).reshape(5, 3),
    }
    names = ["x", "w", "s"]
    if zero_points:
        constants["z"] = np.tile(np.array([0x21, 0x03], np.uint8), (5, 1))
        names.append("z")
    attributes = {"K": 96, "N": 5, "bits": 4, "block_size": 32, "domain": "com.microsoft"}
    nodes = [
        node("MatMulNBits", names, ["h"], "packed", **attributes),
        node("MatMul", ["h", "v"], ["y"], "behind"),
    ]
    constants["v"] = np.ones((5, 4), np.float32)
    made = graph(nodes, [value("x", ["n", 7, 96])], [value("y", ["n", 7, 4])], constants)
    packed, behind = layers(made, domains=["com.microsoft"])
    assert packed.weight is not None
    assert (packed.weight.dtype, packed.weight.block_size) == ("uint4", 32)
    assert packed.weight.scales == tuple(range(1, 16))
    assert packed.weight.zero_points == ((1, 2, 3) * 5 if zero_points else (8,) * 15)
    assert (packed.macs, behind.macs) == (7 * 96 * 5, 7 * 5 * 4)
    assert packed.weight_bytes == 5 * 3 * 16 + 15 * 4 + (10 if zero_points else 0)
    assert precision_of([packed], "ort").name == "int4_weights"


def test_the_precision_of_a_file_of_free_size_is_told() -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "s"], ["e"]),
        node("Conv", ["d", "e"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w": np.ones((4, 3, 3, 3), np.int8)}
    made = graph(nodes, [value("x", ["n", 3, "h", "w"])], [value("y", None)], constants)
    found = layers(made)
    assert found[0].macs is None
    assert precision_of(found, "ort").name == "int8"


def test_older_files_list_their_weights_as_inputs() -> None:
    made = convolution("n", 3, 8, 6)
    made.input.append(value("w", [16, 3, 3, 3]))
    assert layers(made)[0].macs == 432 * 48


def test_weights_in_another_file_are_asked_for(refused, tmp_path) -> None:
    made = model(convolution("n", 3, 8, 6))
    onnx.save(
        made, tmp_path / "f.onnx", save_as_external_data=True, size_threshold=0, location="f.bin"
    )
    with refused(BadInputError, "f.onnx", "another file, f.bin", "save it as one file"):
        read_layers((tmp_path / "f.onnx").read_bytes(), "f.onnx")


def test_files_of_free_and_of_fixed_size_are_compared(edgedl: Run, tmp_path) -> None:
    onnx.save(model(convolution("n", 3, "height", "width")), tmp_path / "free.onnx")
    onnx.save(model(convolution(-1, 3, -1, -1)), tmp_path / "negative.onnx")
    done = edgedl("diff", tmp_path / "free.onnx", tmp_path / "negative.onnx", "--json")
    (match,) = json.loads(done.stdout)
    assert match["first"]["macs"] is match["second"]["macs"] is None
    assert match["first"]["shape"] == match["second"]["shape"]
    (same,) = align(layers(convolution("n", 3, "h", "w")), layers(convolution("n", 3, 8, 8)))[:1]
    assert same.first is not None


@pytest.mark.parametrize("how", [{}, {"--json": True}])
def test_unknown_is_said(edgedl: Run, tmp_path, how: dict) -> None:
    onnx.save(model(convolution(-1, 3, -1, -1)), tmp_path / "f.onnx")
    done = edgedl("inspect", tmp_path / "f.onnx", *how)
    assert done.returncode == 0, done.stderr
    if how:
        ((layer,),) = json.loads(done.stdout).values()
        assert layer["macs"] is None
    else:
        (row,) = [line for line in done.stdout.splitlines() if "Conv" in line]
        assert row.rstrip("| ").endswith("unknown")
