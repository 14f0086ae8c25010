"""TFLite files that other converters wrote: variables, branches, free sizes, what stands behind."""

import io
import zipfile

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from command import Run
from onnx_builder import graph, model, value
from tflite_builder import Graph, Op, T, blocks, tflite

from edgedl.compress.export.tflite.interface import describe_tflite
from edgedl.compress.modelfile.layer import FileLayer, work_of
from edgedl.compress.modelfile.read import read_layers
from edgedl.runtime.backends.tflite import LiteRTBackend
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BadInputError
from edgedl.tools.bench.loose_file import precision_of

SAME = {"padding": 0, "strideW": 1, "strideH": 1}


def layers(content: bytes) -> list[FileLayer]:
    return read_layers(content, "f.tflite")


def runs(content: bytes) -> None:
    """Say that LiteRT itself takes a file."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()


def convolution(*, side: int = 6, free: str = "") -> Graph:
    """Return a 3x3 convolution of 3 to 4 channels over 6 x 6; ``free`` names axes, of "nhw"."""
    signature = [
        -1 if axis in free else size for axis, size in zip("nhwc", (1, side, side, 3), strict=True)
    ]
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    return Graph(
        [
            T("x", [1, side, side, 3], signature=signature if free else None),
            T("w", [4, 3, 3, 3], weight),
            T("b", [4], np.zeros(4, np.float32)),
            T("y", [1, side, side, 4], signature=[*signature[:3], 4] if free else None),
        ],
        [Op("CONV_2D", [0, 1, 2], [3], "Conv2DOptions", SAME)],
        [0],
        [3],
    )


@pytest.mark.parametrize(
    ("free", "macs"),
    [("", 36 * 4 * 27), ("n", 36 * 4 * 27), ("nhw", None), ("h", None), ("nw", None)],
)
def test_free_sizes_are_not_those_of_the_example(free: str, macs: int | None) -> None:
    content = tflite(convolution(side=1 if "h" in free and "w" in free else 6, free=free))
    runs(content)
    (layer,) = layers(content)
    assert layer.macs == macs
    assert [size is None for size in layer.shape] == [axis in free for axis in "nhwc"]


@pytest.mark.parametrize("free", ["hw", "nhw"])
def test_a_file_of_free_size_runs_on_any(free: str) -> None:
    content = tflite(convolution(side=1, free=free))
    inputs, outputs = describe_tflite(content)
    assert inputs[0].shape == (1, None, None, 3)
    session = LiteRTBackend().load(
        content, Artifact("f", "tflite", "float32", "f", inputs, outputs, ()), 1
    )
    fixed = {}
    for side in (5, 9, 5):
        x = np.random.default_rng(side).normal(size=(1, side, side, 3)).astype(np.float32)
        (found,) = session.run([x])
        other = Interpreter(model_content=tflite(convolution(side=side)))
        other.allocate_tensors()
        other.set_tensor(0, x)
        other.invoke()
        fixed[side] = other.get_tensor(3)
        np.testing.assert_allclose(found, fixed[side], atol=1e-6)
    with pytest.raises(BadInputError, match="LiteRT refuses f"):
        session.run([np.zeros((1, 5, 5, 4), np.float32)])


def test_a_state_that_is_kept_between_calls(edgedl: Run, tmp_path) -> None:
    handle = Op("VAR_HANDLE", [], [1], "VarHandleOptions", {"sharedName": b"state"})
    main = Graph(
        [T("x", [1, 4]), T("handle", [], kind="RESOURCE"), T("old", [1, 4]), T("new", [1, 4])],
        [
            Op("CALL_ONCE", [], [], "CallOnceOptions", {"initSubgraphIndex": 1}),
            handle,
            Op("READ_VARIABLE", [1], [2], "ReadVariableOptions"),
            Op("ADD", [0, 2], [3], "AddOptions"),
            Op("ASSIGN_VARIABLE", [1, 3], [], "AssignVariableOptions"),
        ],
        [0],
        [3],
    )
    start = Graph(
        [T("h", [], kind="RESOURCE"), T("zeros", [1, 4], np.zeros((1, 4), np.float32))],
        [
            Op("VAR_HANDLE", [], [0], "VarHandleOptions", {"sharedName": b"state"}),
            Op("ASSIGN_VARIABLE", [0, 1], [], "AssignVariableOptions"),
        ],
        [],
        [],
    )
    content = tflite(main, start)
    runs(content)
    found = layers(content)
    assert [x.operator for x in found if not x.inside] == [op.kind for op in main.operators]
    assert {x.inside for x in found if x.inside} == {"CALL_ONCE/initSubgraph"}
    assert (found[-1].name, found[-1].shape) == ("handle", ())
    assert work_of(found).total == 0
    (tmp_path / "f.tflite").write_bytes(content)
    done = edgedl("inspect", tmp_path / "f.tflite")
    assert done.returncode == 0, done.stderr
    assert "ASSIGN_VARIABLE" in done.stdout


def zipped() -> bytes:
    """Return labels as the metadata of TFLite stand behind a file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("labels.txt", "cat\ndog\n")
    return packed.getvalue()


@pytest.mark.parametrize("behind", [b"\0" * 3, b"x" * 999, zipped()], ids=["zeros", "text", "zip"])
def test_what_stands_behind_a_file_changes_nothing(edgedl: Run, tmp_path, behind: bytes) -> None:
    content = tflite(convolution())
    runs(content + behind)
    assert layers(content + behind) == layers(content)
    assert describe_tflite(content + behind) == describe_tflite(content)
    (tmp_path / "a.tflite").write_bytes(content)
    (tmp_path / "b.tflite").write_bytes(content + behind)
    done = edgedl("diff", tmp_path / "a.tflite", tmp_path / "b.tflite")
    assert "1 of 1 matched layers are the same, 0 are in one file only" in done.stdout


def test_weights_behind_the_structure_are_counted() -> None:
    content = tflite(convolution())
    tree = schema.ModelT.InitFromPackedBuf(content, 0)
    weight = tree.buffers[1]
    data = bytes(weight.data)

    def packed(offset: int) -> bytes:
        weight.data, weight.offset, weight.size = None, offset, len(data)
        builder = schema.flatbuffers.Builder(1024)
        builder.Finish(tree.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    size = -(-len(packed(2**20)) // 64) * 64
    behind = packed(size).ljust(size, b"\0") + data
    runs(behind)
    assert layers(behind) == layers(content)


def product(columns: int) -> Graph:
    return Graph(
        [
            T("x", [1, 16]),
            T(f"w{columns}", [columns, 16], np.ones((columns, 16), np.float32)),
            T("y", [1, columns]),
        ],
        [Op("FULLY_CONNECTED", [0, 1, -1], [2], "FullyConnectedOptions")],
        [0],
        [2],
    )


@pytest.mark.parametrize(("columns", "macs"), [(8, 128), (4, None)])
def test_branches_count_once(columns: int, macs: int | None) -> None:
    fields = {"thenSubgraphIndex": 1, "elseSubgraphIndex": 2}
    main = Graph(
        [T("flag", [1], kind="BOOL"), T("x", [1, 16]), T("y", [1, 8])],
        [Op("IF", [0, 1], [2], "IfOptions", fields)],
        [0, 1],
        [2],
    )
    content = tflite(main, product(8), product(columns))
    found = layers(content)
    assert [(x.operator, x.macs) for x in found] == [
        ("IF", macs),
        ("FULLY_CONNECTED", 128),
        ("FULLY_CONNECTED", 16 * columns),
    ]
    assert work_of(found).total == macs
    assert precision_of(found, "tflite").name == "float32"


def test_rounds_of_a_loop_are_unknown_and_a_circle_is_refused() -> None:
    condition = Graph([T("x", [1, 16]), T("go", [1], kind="BOOL")], [], [0], [1])
    fields = {"condSubgraphIndex": 1, "bodySubgraphIndex": 2}
    loop = [Op("WHILE", [0], [1], "WhileOptions", fields)]
    main = Graph([T("x", [1, 16]), T("y", [1, 16])], loop, [0], [1])
    found = layers(tflite(main, condition, product(16)))
    assert [x.macs for x in found] == [None, 256]
    with pytest.raises(BadInputError, match="subgraph 2 runs itself"):
        layers(tflite(main, condition, main))


@pytest.mark.parametrize("scale", [np.float16, np.float32])
def test_int4_weights_in_blocks(scale: type) -> None:
    weight = T(
        "w", [8, 64], b"\x11" * 256, "INT4", quantization=blocks(scales=3, blockSize=32)
    )  # fmt: skip
    kind = "FLOAT16" if scale is np.float16 else "FLOAT32"
    tensors = [
        T("x", [1, 64]),
        weight,
        T("y", [1, 8]),
        T("s", [8, 2], np.full((8, 2), 0.25, scale), kind),
    ]
    operators = [Op("FULLY_CONNECTED", [0, 1, -1], [2], "FullyConnectedOptions")]
    (layer,) = layers(tflite(Graph(tensors, operators, [0], [2])))
    assert layer.weight is not None
    assert (layer.weight.dtype, layer.weight.block_size) == ("int4", 32)
    assert layer.weight.scales == (0.25,) * 16
    assert (layer.weight_bytes, layer.macs) == (256, 512)
    assert precision_of([layer], "tflite").name == "int4_weights"


@pytest.mark.parametrize("adjoint", [False, True])
def test_products_with_the_first_transposed(adjoint: bool) -> None:
    first = [2, 5, 3] if adjoint else [2, 3, 5]
    tensors = [T("a", first), T("b", [2, 5, 7]), T("y", [2, 3, 7])]
    operators = [Op("BATCH_MATMUL", [0, 1], [2], "BatchMatMulOptions", {"adjX": adjoint})]
    (layer,) = layers(tflite(Graph(tensors, operators, [0, 1], [2])))
    assert layer.macs == 2 * 3 * 5 * 7


def test_recurrent_layers_count_every_step() -> None:
    def matrix(name: str, *shape: int) -> T:
        return T(name, shape, np.ones(shape, np.float32))

    weights = [matrix(f"i{i}", 6, 5) for i in range(4)] + [matrix(f"r{i}", 6, 6) for i in range(4)]
    states = [T("h", [1, 6]), T("c", [1, 6])]
    tensors = [T("x", [1, 9, 5]), *weights, *states, T("y", [1, 9, 6])]
    reads = [0, *range(1, 9), *[-1] * 9, 9, 10]
    kind = "UNIDIRECTIONAL_SEQUENCE_LSTM"
    operators = [Op(kind, reads, [11], "UnidirectionalSequenceLSTMOptions")]
    (layer,) = layers(tflite(Graph(tensors, operators, [0], [11])))
    assert layer.macs == 9 * 4 * 6 * 11


def test_custom_operators_are_unknown_but_for_known_ones() -> None:
    tensors = [T("x", [1, 4]), T("h", [1, 4]), T("y", [1, 4])]
    for kind, macs in (("MyOwn", None), ("TFLite_Detection_PostProcess", 0)):
        operators = [Op(kind, [0], [1]), Op("RELU", [1], [2])]
        found = layers(tflite(Graph(tensors, operators, [0], [2])))
        assert [(x.operator, x.macs) for x in found] == [(kind, macs), ("RELU", 0)]


def test_rows_that_the_data_choose_are_unknown() -> None:
    tensors = [
        T("flags", [8], kind="BOOL"),
        T("rows", [1, 1], kind="INT64", signature=[-1, 1]),
        T("x", [1, 16], signature=[-1, 16]),
        T("w", [8, 16], np.ones((8, 16), np.float32)),
        T("y", [1, 8], signature=[-1, 8]),
    ]
    operators = [
        Op("WHERE", [0], [1], "WhereOptions"),
        Op("CAST", [1], [2], "CastOptions"),
        Op("FULLY_CONNECTED", [2, 3, -1], [4], "FullyConnectedOptions"),
    ]
    found = layers(tflite(Graph(tensors, operators, [0], [4])))
    assert [x.macs for x in found] == [0, 0, None]


def test_the_same_layer_in_either_layout_is_matched(edgedl: Run, tmp_path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", pads=[1] * 4)]
    constants = {"w": weight, "b": np.zeros(4, np.float32)}
    made = graph(nodes, [value("x", ["n", 3, 6, 6])], [value("y", ["n", 4, 6, 6])], constants)
    onnx.save(model(made), tmp_path / "a.onnx")
    (tmp_path / "b.tflite").write_bytes(tflite(convolution()))
    done = edgedl("diff", tmp_path / "a.onnx", tmp_path / "b.tflite")
    assert "1 of 1 matched layers are the same, 0 are in one file only" in done.stdout
