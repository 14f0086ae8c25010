"""Files of other tools under one task: channels elsewhere, free sizes, several inputs."""

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from command import Done, Run
from onnx import TensorProto, helper
from onnx_builder import Axis, graph, model, value
from tflite_builder import Graph, Op, T, tflite

from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.bench.file_tensors import fit_tensors
from edgedl.tools.bench.loose_file import wrap_file

node = helper.make_node
SIDE = 8
WEIGHT = np.random.default_rng(4).normal(size=(4, 3)).astype(np.float32)
PICTURES = np.random.default_rng(1).normal(size=(24, 3, SIDE, SIDE)).astype(np.float32)
MAPS = np.einsum("nchw,kc->nkhw", PICTURES, WEIGHT)

TASK = """
import sys
sys.path.insert(0, {folder!r})
from test_files_elsewhere import {name} as task
"""


def same(outputs: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Score 1 where an output is the label within rounding."""
    if outputs[0].shape != labels.shape:
        return np.zeros(len(labels))
    return np.abs(outputs[0] - labels).reshape(len(labels), -1).max(1) < 1e-4


def task_of(*inputs: np.ndarray, labels: np.ndarray) -> ArrayTask:
    splits = dict.fromkeys(("test", "calibration"), lambda: Samples(inputs, labels))
    return ArrayTask("pictures", splits, metric="same", score_samples=same)


def first_task() -> ArrayTask:
    return task_of(PICTURES, labels=MAPS)


def last_task() -> ArrayTask:
    return task_of(np.moveaxis(PICTURES, 1, -1).copy(), labels=np.moveaxis(MAPS, 1, -1).copy())


def onnx_file(*sizes: Axis) -> bytes:
    nodes = [node("Conv", ["x", "w"], ["y"])]
    inputs, outputs = [value("x", sizes)], [value("y", [sizes[0], 4, *sizes[2:]])]
    made = model(graph(nodes, inputs, outputs, {"w": WEIGHT[:, :, None, None]}))
    return bytes(made.SerializeToString())


def tflite_file(free: bool = False) -> bytes:
    side, size = (1, -1) if free else (SIDE, SIDE)
    tensors = [
        T("x", [1, side, side, 3], signature=[1, size, size, 3]),
        T("w", [4, 1, 1, 3], WEIGHT[:, None, None]),
        T("b", [4], np.zeros(4, np.float32)),
        T("y", [1, side, side, 4], signature=[1, size, size, 4]),
    ]
    options = {"padding": 1, "strideW": 1, "strideH": 1}
    operators = [Op("CONV_2D", [0, 1, 2], [3], "Conv2DOptions", options)]
    return tflite(Graph(tensors, operators, [0], [3]))


def bench(edgedl: Run, folder: Path, task: str, **files: bytes) -> Done:
    (folder / "mine.py").write_text(TASK.format(folder=str(Path(__file__).parent), name=task))
    paths = []
    for name, content in files.items():
        paths.append(folder / name.replace("_", "."))
        paths[-1].write_bytes(content)
    options = ("--task", f"{folder / 'mine.py'}:task", "--threads", "1", "--out", folder / "out")
    return edgedl("bench", *paths, *options)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["first_task", "last_task"])
def test_both_layouts_are_scored_by_one_task(edgedl: Run, tmp_path: Path, task: str) -> None:
    files = {"a_onnx": onnx_file("n", 3, SIDE, SIDE), "b_onnx": onnx_file(-1, 3, -1, -1)}
    done = bench(edgedl, tmp_path, task, **files, c_tflite=tflite_file())
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "result.json").read_text())["candidates"]
    assert [x["score"]["value"] for x in found] == [1.0, 1.0, 1.0]
    assert all(x["latency"][0]["median_ms"] > 0 for x in found)
    moved = [line for line in done.stderr.splitlines() if "its channels are transposed" in line]
    kinds = {"first_task": ("c.tflite", "NHWC"), "last_task": ("a.onnx", "NCHW")}[task]
    assert all(word in moved[0] for word in kinds)


def wrap(tmp_path: Path, name: str, content: bytes, task: ArrayTask) -> Runner:
    (tmp_path / name).write_bytes(content)
    bundle, _ = wrap_file(tmp_path / name, task, tmp_path / "bundle")
    return Runner(bundle, bundle.manifest.artifacts[0])


@pytest.mark.parametrize("task", [first_task(), last_task()], ids=["first", "last"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.onnx", onnx_file("n", 3, "h", "w")),
        ("a.onnx", onnx_file(1, 3, SIDE, SIDE)),
        ("a.tflite", tflite_file()),
        ("a.tflite", tflite_file(free=True)),
    ],
    ids=["free", "one", "tflite", "tflite free"],
)
def test_a_file_answers_in_the_layout_of_the_task(
    tmp_path: Path, task: ArrayTask, name: str, content: bytes
) -> None:
    (batch,) = task.batches("test", 100)
    with wrap(tmp_path, name, content, task) as runner:
        (found,) = runner(*batch.inputs)
    np.testing.assert_allclose(found, batch.labels, atol=1e-4)


def lookup(kind: int, names: tuple[str, str] = ("ids", "scale")) -> bytes:
    """Return the rows of a table that ids [n, 5] choose, times a scale [n, 1, 7]."""
    inputs = {"ids": value("ids", ["n", 5], kind), "scale": value("scale", ["n", 1, 7])}
    nodes = [node("Gather", ["t", "ids"], ["r"]), node("Mul", ["r", "scale"], ["y"])]
    table = np.arange(21, dtype=np.float32).reshape(3, 7)
    made = graph(nodes, [inputs[n] for n in names], [value("y", ["n", 5, 7])], {"t": table})
    return bytes(model(made).SerializeToString())


@pytest.mark.parametrize("given", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize("names", [("ids", "scale"), ("scale", "ids")])
def test_inputs_of_different_shape_in_any_order(
    tmp_path: Path, names: tuple[str, str], kind: int, given: type
) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (6, 5)).astype(given)
    scale = rng.normal(size=(6, 1, 7)).astype(np.float32)
    table = np.arange(21, dtype=np.float32).reshape(3, 7)
    task = task_of(ids, scale, labels=table[ids] * scale)
    with wrap(tmp_path, "a.onnx", lookup(kind, names), task) as runner:
        (found,) = runner(ids, scale)
    np.testing.assert_allclose(found, table[ids] * scale, rtol=1e-6)


def spec(name: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, shape, "float32")


@pytest.mark.parametrize(
    ("inputs", "given", "words"),
    [
        ([spec("a", None, 3)], [(6, 4)], ("takes [N, 3], the task gives [6, 4]",)),
        ([spec("a", None, 3)], [(6, 3), (6, 3)], ("takes 1 inputs, the task gives 2",)),
        ([spec("a", None, 3), spec("k")], [(6, 3), (6,)], ("input 'k'", "no batch axis")),
        ([spec("a", 1, 3), spec("b", 4, 3)], [(6, 3), (6, 3)], ("takes batches of 4",)),
        ([spec("a", 1, 8, 8, 3)], [(6, 3, 8, 9)], ("takes [1, 8, 8, 3]", "[6, 3, 8, 9]")),
        ([spec("a", None, 2), spec("b", None, 3)], [(6, 3), (6, 3)], ("[N, 2], [N, 3]",)),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    refused, inputs: list[TensorSpec], given: list[tuple[int, ...]], words: tuple[str, ...]
) -> None:
    arrays = [np.zeros(shape, np.float32) for shape in given]
    with refused(BadInputError, "f.onnx", *words):
        fit_tensors(Path("f.onnx"), inputs, [spec("y", None, 2)], arrays)


def test_an_order_that_shapes_do_not_tell_is_the_files() -> None:
    inputs = [spec("b", None, 3), spec("a", None, 3)]
    arrays = [np.zeros((6, 3), np.float32)] * 2
    found = fit_tensors(Path("f.onnx"), inputs, [spec("y", None, 2)], arrays)
    assert [s.name for s in found.inputs] == ["b", "a"]
    assert found.notes == ()


def test_pictures_as_high_as_they_have_channels_are_taken_as_given() -> None:
    arrays = [np.zeros((6, 8, 8, 8), np.float32)]
    found = fit_tensors(Path("f"), [spec("x", 1, 8, 8, 8)], [spec("y", 1, 8, 8, 2)], arrays)
    assert found.inputs[0].layout is found.outputs[0].layout is None
    assert ["its shape fits both" in note for note in found.notes] == [True]


@pytest.mark.parametrize("axes", [3, 4, 5])
def test_outputs_with_as_many_axes_are_moved_too(axes: int) -> None:
    sizes = [5, 6, 7][: axes - 2]
    arrays = [np.zeros((4, 3, *sizes), np.float32)]
    outputs = [spec("maps", 1, *sizes, 2), spec("classes", 1, 9)]
    found = fit_tensors(Path("f"), [spec("x", 1, *sizes, 3)], outputs, arrays)
    assert found.logical_inputs[0].shape == (None, 3, *sizes)
    assert [s.shape for s in found.logical_outputs] == [(None, 2, *sizes), (None, 9)]
    assert found.outputs[1].layout is None


def test_an_output_without_a_shape_is_inferred(tmp_path: Path) -> None:
    made = onnx.load_from_string(onnx_file("n", 3, SIDE, SIDE))
    made.graph.output[0].type.tensor_type.ClearField("shape")
    with wrap(tmp_path, "a.onnx", made.SerializeToString(), first_task()) as runner:
        assert runner.bundle.manifest.outputs[0].shape == (None, 4, SIDE, SIDE)
        np.testing.assert_allclose(runner(PICTURES)[0], MAPS, atol=1e-4)


def test_a_file_that_says_its_layouts_is_taken_at_its_word() -> None:
    """Shapes alone could not tell: all sizes are 8, and the other output keeps its axes."""
    last = msgspec.structs.replace(spec("x", 1, 8, 8, 8), layout="NHWC")
    outputs = [
        spec("heads", 1, 8, 8, 8),
        msgspec.structs.replace(spec("map", 1, 8, 8, 2), layout="NHWC"),
    ]
    given = [np.zeros((4, 8, 8, 8), np.float32)]
    found = fit_tensors(Path("f"), [last], outputs, given)
    assert [s.layout for s in found.inputs] == ["NHWC"]
    assert [s.layout for s in found.outputs] == [None, "NHWC"]
    with pytest.raises(BadInputError, match="the task gives"):
        fit_tensors(Path("f"), [last], outputs, [np.zeros((4, 8, 8, 3), np.float32)])
