"""Quantized files in half-floats, with branches, of free sizes, with several inputs."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from command import Run
from file_readers import run_onnx
from onnx import TensorProto, helper
from onnx_builder import Axis, graph, model, value

from edgedl.compress.convert.compare import agreement, noise_for
from edgedl.compress.convert.foreign import read_foreign
from edgedl.compress.convert.requantize import requantize
from edgedl.compress.targets.named import ORT, TENSORRT
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import BadInputError

node = helper.make_node
HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def convolution(
    given: int, returned: int, sizes: Sequence[Axis] = ("n", 3, 8, 8), pads: int = 1
) -> bytes:
    """Return a convolution between pairs, all of whose numbers are half-floats.

    Conversions stand where its input or output is float32.
    """
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.002, 0.004, 8).astype(np.float16),
        "b": rng.normal(size=8).astype(np.float16),
        "xs": np.float16(0.03),
        "ys": np.float16(0.05),
        "z": np.int8(3),
        "wz": np.zeros(8, np.int8),
        "six": np.float16(6),
        "none": np.float16(0),
    }
    first, last = "x" if given == HALF else "h", "y" if returned == HALF else "r"
    nodes = [
        node("QuantizeLinear", [first, "xs", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "z"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        node("Conv", ["xd", "wd", "b"], ["c"], pads=[pads] * 4),
        node("Clip", ["c", "none", "six"], ["a"]),
        node("QuantizeLinear", ["a", "ys", "z"], ["aq"]),
        node("DequantizeLinear", ["aq", "ys", "z"], [last]),
    ]
    if given != HALF:
        nodes.insert(0, node("Cast", ["x"], ["h"], to=HALF))
    if returned != HALF:
        nodes.append(node("Cast", ["r"], ["y"], to=SINGLE))
    outer = ["n", 8, None, None]
    made = graph(nodes, [value("x", sizes, given)], [value("y", outer, returned)], constants)
    return bytes(model(made, opset=19).SerializeToString())


@pytest.mark.parametrize("target", [ORT, TENSORRT], ids=lambda t: t.name)
@pytest.mark.parametrize("returned", [SINGLE, HALF])
@pytest.mark.parametrize("given", [SINGLE, HALF])
def test_half_floats_are_carried_over(given: int, returned: int, target: Target) -> None:
    content = convolution(given, returned)
    network = read_foreign(content, "f.onnx")
    assert len(network.grids) == 2
    made = requantize(network, target)
    x = np.random.default_rng(1).normal(size=(16, 3, 8, 8))
    x = x.astype(np.float16 if given == HALF else np.float32)
    (wanted,), (found,) = run_onnx(content, (x,), False), run_onnx(made.content, (x,), False)
    assert found.dtype == wanted.dtype
    noise = np.square(wanted.astype(np.float64) - found).sum()
    # Signed grids without a zero point are up to twice as wide.
    least = 30 if target is ORT else 20
    assert 10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise) > least
    kinds = {t.data_type for t in onnx.load_from_string(made.content).graph.initializer}
    assert HALF not in kinds


def test_a_file_without_half_floats_keeps_its_conversions() -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Cast", ["d"], ["i"], to=TensorProto.INT32),
        node("Cast", ["i"], ["y"], to=SINGLE),
    ]
    constants = {"s": np.float32(0.5), "z": np.uint8(128)}
    made = graph(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], constants)
    content = bytes(model(made).SerializeToString())
    network = read_foreign(content, "f.onnx")
    assert [n.op_type for n in network.model.graph.node] == ["Cast", "Cast"]


def in_branches(*kinds: str) -> bytes:
    """Return an If whose branches read a quantized value and a weight from outside."""
    branches = [
        graph(
            [node("MatMul", ["d", "wd"], [f"m_{kind}"]), node(kind, [f"m_{kind}"], [f"y_{kind}"])],
            [],
            [value(f"y_{kind}", ["n", 4])],
        )
        for kind in kinds
    ]
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "t"], ["wd"], axis=1),
        node("If", ["f"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    constants = {
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "t": np.full(4, 0.01, np.float32),
        "w": np.random.default_rng(0).integers(-127, 128, (8, 4)).astype(np.int8),
    }
    inputs = [value("x", ["n", 8]), value("f", [], TensorProto.BOOL)]
    return bytes(model(graph(nodes, inputs, [value("y", ["n", 4])], constants)).SerializeToString())


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("target", [ORT, TENSORRT], ids=lambda t: t.name)
def test_branches_read_what_they_read(target: Target, flag: bool) -> None:
    content = in_branches("Relu", "Neg")
    made = requantize(read_foreign(content, "f.onnx"), target)
    x = np.random.default_rng(1).uniform(-6, 6, (40, 8)).astype(np.float32)
    found = agreement(content, made.content, (x, np.array(flag)))
    assert found.samples == 40
    assert found.sqnr_db is None or found.sqnr_db > 25


def test_pairs_inside_a_branch_are_refused(refused) -> None:
    loaded = onnx.load_from_string(in_branches("Relu", "Neg"))
    inner = next(n for n in loaded.graph.node if n.op_type == "If").attribute[0].g
    pair = [
        node("QuantizeLinear", ["x", "s", "z"], ["iq"]),
        node("DequantizeLinear", ["iq", "s", "z"], ["id"]),
    ]
    rest = list(inner.node)
    del inner.node[:]
    inner.node.extend([*pair, *rest])
    with refused(BadInputError, "f.onnx", "inside a branch or a loop"):
        read_foreign(loaded.SerializeToString(), "f.onnx")


@pytest.mark.parametrize("sizes", [("n", 3, "h", "w"), (-1, 3, -1, -1), (2, 3, "h", 8)])
def test_noise_has_a_size_that_the_file_takes(sizes: Sequence[Axis]) -> None:
    # Without padding a picture of one pixel is too small.
    content = convolution(SINGLE, SINGLE, sizes, pads=0)
    network = read_foreign(content, "f.onnx")
    (noise,) = noise_for(content, network, 5)
    batch = 2 if sizes[0] == 2 else 5
    assert noise.shape == (batch, 3, 32, 8 if sizes[3] == 8 else 32)
    made = requantize(network, ORT)
    found = agreement(content, made.content, (noise,))
    assert found.samples == batch
    assert not found.far


def test_sizes_that_no_noise_has_are_asked_for(refused) -> None:
    loaded = onnx.load_from_string(convolution(SINGLE, SINGLE, ("n", 3, "h", "w")))
    reshape = node("Reshape", ["y", "shape"], ["out"])
    loaded.graph.node.append(reshape)
    shape = onnx.numpy_helper.from_array(np.array([-1, 8, 57, 31]), "shape")
    loaded.graph.initializer.append(shape)
    loaded.graph.output[0].CopyFrom(value("out", [None, 8, 57, 31]))
    content = loaded.SerializeToString()
    network = read_foreign(content, "f.onnx")
    with refused(BadInputError, "give arrays with --input"):
        noise_for(content, network, 7)


def test_weights_that_are_listed_as_inputs() -> None:
    loaded = onnx.load_from_string(convolution(SINGLE, SINGLE))
    for tensor in loaded.graph.initializer:
        loaded.graph.input.append(value(tensor.name, tensor.dims, tensor.data_type))
    content = loaded.SerializeToString()
    network = read_foreign(content, "f.onnx")
    assert [v.name for v in network.model.graph.input] == ["x"]
    (x,) = noise_for(content, network, 4)
    made = requantize(network, ORT)
    plain = convolution(SINGLE, SINGLE)
    found, wanted = (run_onnx(c, (x,), False)[0] for c in (made.content, plain))
    np.testing.assert_allclose(found, wanted, atol=0.06)


def test_inputs_of_different_length_are_given_as_they_are(edgedl: Run, tmp_path) -> None:
    nodes = []
    for name in ("a", "b"):
        nodes += [
            node("QuantizeLinear", [name, "s", "z"], [f"{name}q"]),
            node("DequantizeLinear", [f"{name}q", "s", "z"], [f"{name}d"]),
        ]
    nodes += [node("Transpose", ["bd"], ["t"]), node("MatMul", ["ad", "t"], ["m"])]
    nodes += [node("Mul", ["m", "k"], ["y"])]
    inputs = [value("a", ["n", 4]), value("b", ["m", 4]), value("k", [])]
    constants = {"s": np.float32(0.05), "z": np.uint8(128)}
    made = graph(nodes, inputs, [value("y", ["n", "m"])], constants)
    onnx.save(model(made), tmp_path / "f.onnx")
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(9, 4)), "b": rng.normal(size=(5, 4)), "k": np.array(2.0)}
    np.savez(tmp_path / "x.npz", **{k: x.astype(np.float32) for k, x in arrays.items()})
    command = ("convert", tmp_path / "f.onnx", "--target", "ort")
    done = edgedl(*command, "--out", tmp_path / "given", "--input", tmp_path / "x.npz")
    assert done.returncode == 0, done.stderr
    assert "9 samples" in done.stdout
    noisy = edgedl(*command, "--out", tmp_path / "noise")
    assert noisy.returncode == 0, noisy.stderr
