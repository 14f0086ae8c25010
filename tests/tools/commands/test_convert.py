"""``edgedl convert``: an int8 file of a bundle stands for one from elsewhere."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from command import Run
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgedl.compress.export.tensorrt.lint import lint
from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.measure.device import run_context
from edgedl.tools.commands.convert import command


def test_a_file_is_written_for_every_runtime_that_reads_onnx(
    edgedl: Run, compressed: CompressedModel, tmp_path: Path
) -> None:
    x = tmp_path / "x.npy"
    with np.load(compressed.bundle.folder / "golden.npz") as golden:
        np.save(x, golden["input/0"])
    source = compressed.bundle.folder / "int8.ort.onnx"
    done = edgedl("convert", source, "--out", tmp_path / "made", "--input", x)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.splitlines()
    assert "int8.ort.ort.onnx: the same outputs, 100.0 % the same prediction, 5 s" in first
    # Products are float on OpenVINO, and read what is not rounded.
    assert "int8.ort.openvino.onnx: " in second
    assert "100.0 % the same prediction" in second
    assert third.startswith("tensorrt: accepted by")
    assert " dB, " in fourth
    made = onnx.load(tmp_path / "made" / "int8.ort.tensorrt.onnx")
    assert lint(made) == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("int8.tflite", [], "cannot be written for another runtime"),
        ("float32.onnx", [], "is not quantized"),
        ("nowhere.onnx", [], "there is no file"),
        ("int8.ort.onnx", ["--target", "tflite"], "cannot be written for LiteRT"),
        ("int8.ort.onnx", ["--input", "manifest.json"], "is not a readable array file"),
        ("int8.ort.onnx", ["--input", "x.npy", "--input", "x.npy"], "has 1 inputs, 2 arrays were"),
        ("int8.ort.onnx", ["--input", "nowhere.npy"], "there is no file"),
        ("int8.ort.onnx", ["--input", "two.npz"], "holds 2 arrays, the network takes 1"),
        ("int8.ort.onnx", ["--input", "empty.npy"], "must be [N, 3, 12, 12], got [0, 3, 12, 12]"),
        ("int8.ort.onnx", ["--input", "small.npy"], "must be [N, 3, 12, 12], got [1, 3, 9, 9]"),
        ("int8.ort.onnx", ["--input", "nan.npy"], "values that are not finite"),
        ("int8.ort.onnx", ["--input", "double.npy"], "must be float32, got float64"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    edgedl: Run, compressed: CompressedModel, tmp_path: Path, name: str, options: list, words: str
) -> None:
    folder = compressed.bundle.folder
    x = np.zeros((1, 3, 12, 12), np.float32)
    arrays = {"x": x, "empty": x[:0], "small": x[:, :, :9, :9], "nan": x * np.nan}
    for name_of_array, array in {**arrays, "double": x.astype(np.float64)}.items():
        np.save(tmp_path / f"{name_of_array}.npy", array)
    np.savez(tmp_path / "two.npz", a=x, b=x)
    places = {".json": folder, ".npy": tmp_path, ".npz": tmp_path}
    options = [places.get(Path(o).suffix, "") / Path(o) if "." in o else o for o in options]
    done = edgedl("convert", folder / name, "--out", tmp_path / "made", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "made").exists()


def test_arrays_of_a_npz_go_by_the_names_of_the_inputs(edgedl: Run, tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    a, b = (r.uniform(0.0, 2.0, (9, k)).astype(np.float32) for k in (4, 1))
    file = write_file(tmp_path / "sum.onnx", zero_point=128)
    np.savez(tmp_path / "x.npz", b=b, a=a)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b[:5])
    convert = ("convert", file, "--target", "tensorrt", "--out")
    done = edgedl(*convert, tmp_path / "one", "--input", tmp_path / "x.npz")
    assert done.returncode == 0, done.stderr
    assert "9 samples" in done.stdout
    each = ("--input", tmp_path / "a.npy", "--input", tmp_path / "b.npy")
    done = edgedl(*convert, tmp_path / "two", *each)
    assert done.returncode == 2
    assert "the same number of samples, not 9, 5" in done.stderr


@pytest.mark.parametrize("given", [True, False], ids=["samples", "noise"])
def test_a_result_far_from_the_file_is_warned_of(edgedl: Run, tmp_path: Path, given: bool) -> None:
    # What the grid of the sum clips, TensorRT's file does not: it has no pair there.
    file = write_file(tmp_path / "sum.onnx", zero_point=3)
    np.savez(
        tmp_path / "x.npz", a=np.full((4, 4), -2, np.float32), b=np.full((4, 1), -2, np.float32)
    )
    options = ("--input", tmp_path / "x.npz") if given else ()
    done = edgedl("convert", file, "--target", "tensorrt", "--out", tmp_path / "made", *options)
    assert done.returncode == 0, done.stderr
    (warning,) = [x for x in done.stderr.splitlines() if x.startswith("warning:")]
    assert "sum.tensorrt.onnx is far from" in warning
    assert ("'edgedl compress'" if given else "--input") in warning


@pytest.mark.parametrize(
    ("isa", "largest", "unsigned"),
    [(("avx2",), 127, True), (("avx2",), 64, False), (("avx2", "avx_vnni"), 127, False)],
)
def test_weights_that_saturate_here_are_written_as_uint8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: tuple, largest: int, unsigned: bool
) -> None:
    here = msgspec.structs.replace(run_context(), isa=isa)
    monkeypatch.setattr("edgedl.runtime.measure.device.run_context", lambda: here)
    file = write_layer(tmp_path / "layer.onnx", largest)
    options = ["--target", "ort,tensorrt", "--out", str(tmp_path / "made")]
    done = CliRunner().invoke(command, [str(file), *options])
    assert done.exit_code == 0, done.stderr
    notes = [x for x in done.stderr.splitlines() if "written as uint8" in x]
    assert [note.partition(":")[0] for note in notes] == ["ort"] * unsigned
    # The last two products add up to more than 16 bits with uint8 activations; the sum does not.
    x = np.array([[0.0, -12.7, 6.4, 6.4]], np.float32)
    for name, is_unsigned in (("ort", unsigned), ("tensorrt", False)):
        made = tmp_path / "made" / f"layer.{name}.onnx"
        types = {t.data_type for t in onnx.load(made).graph.initializer if len(t.dims) == 2}
        assert types == {TensorProto.UINT8 if is_unsigned else TensorProto.INT8}
    session = onnxruntime.InferenceSession(tmp_path / "made" / "layer.ort.onnx")
    (found,) = session.run(None, {"x": x})
    (expected,) = ReferenceEvaluator(str(file)).run(None, {"x": x})
    assert not unsigned or np.array_equal(found, expected)


def write_layer(path: Path, largest: int) -> Path:
    """Write a linear layer of four inputs whose largest stored weight is given."""
    weight = np.full((4, 2), largest, np.int8)
    weight[0] = -1
    stored = {"s": np.float32(0.1), "z": np.int8(0), "w": weight}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(x), name) for name, x in stored.items()],
    )
    opsets = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def write_file(path: Path, zero_point: int) -> Path:
    """Write the sum of a [N, 4] and b [N, 1] as a QDQ file; their grids are [-6.4, 6.35]."""
    numbers = {"s": np.float32(0.05), "z": np.uint8(128)}
    numbers |= {"t": np.float32(0.0513), "v": np.uint8(zero_point)}
    nodes = []
    for name, pair in (("a", ["s", "z"]), ("b", ["s", "z"]), ("c", ["t", "v"])):
        if name == "c":
            nodes.append(helper.make_node("Add", ["a_real", "b_real"], ["c"]))
        nodes.append(helper.make_node("QuantizeLinear", [name, *pair], [f"{name}_integer"]))
        real = "y" if name == "c" else f"{name}_real"
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_integer", *pair], [real]))
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(x), n) for n, x in numbers.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path
