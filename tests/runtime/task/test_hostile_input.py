"""Damaged and hostile files meet one documented error, never a hang, a crash or a guess."""

import io
import os
import struct
import subprocess
import sys
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from edgedl.runtime.backends.ort import OnnxRuntimeBackend
from edgedl.runtime.backends.tflite import LiteRTBackend
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.manifest import Artifact, Manifest, TaskRecord, TensorSpec
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.measure.score_intervals import mean_score, paired_drop
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.runner import Runner
from edgedl.runtime.selfcheck.golden import check_golden
from edgedl.runtime.task.inputs import read_inputs
from edgedl.runtime.task.task import ArrayTask, Samples


@pytest.mark.parametrize("name", ["manifest.json", "int8.tflite"])
def test_named_pipe_is_refused_at_once(bundle_copy, name):
    (bundle_copy / name).unlink()
    os.mkfifo(bundle_copy / name)
    program = (
        "import sys; from pathlib import Path; from edgedl.runtime.bundle.bundle import Bundle\n"
        "from edgedl.runtime.errors import IntegrityError\n"
        "try: Bundle.open(Path(sys.argv[1])).verify()\n"
        "except IntegrityError: sys.exit(5)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(bundle_copy)], timeout=5)
    assert done.returncode == 5


def test_manifest_that_is_a_folder(refused, bundle_copy):
    (bundle_copy / "manifest.json").unlink()
    (bundle_copy / "manifest.json").mkdir()
    with refused(IntegrityError):
        Bundle.open(bundle_copy)


def test_manifest_that_is_not_utf8(refused, bundle_copy):
    (bundle_copy / "manifest.json").write_bytes(b'{"name": "\xff"}')
    with refused(IntegrityError):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("size", [10**12, 2**62, 2**63, 10**30])
def test_manifest_with_a_huge_size(refused, bundle_copy, edit_manifest, size):
    edit_manifest(lambda m: m["files"]["int8.tflite"].update(size_bytes=size))
    with refused(IntegrityError):
        Bundle.open(bundle_copy).verify()


def test_file_name_with_a_newline(refused, bundle_copy):
    (bundle_copy / "a\nb").write_bytes(b"")
    with refused(IntegrityError):
        Bundle.open(bundle_copy)


def test_manifest_with_a_dtype_nobody_knows(refused, bundle_copy, edit_manifest, images):
    edit_manifest(lambda m: m["inputs"][0].update(dtype="float33"))
    with refused(IntegrityError):
        Runner.open(bundle_copy)(images)


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_manifest_with_tensors_the_onnx_file_lacks(
    refused, bundle_copy, edit_manifest, images, kind
):
    edit_manifest(lambda m: m["artifacts"][0][kind][0].update(name="other"))
    with refused(BadInputError, "has no tensor"):
        Runner.open(bundle_copy, "ort-float32")


@pytest.fixture
def golden(bundle_copy, replace_file):
    def change(**arrays):
        with np.load(bundle_copy / "golden.npz") as archive:
            merged = {**archive, **{k.replace("__", "/"): v for k, v in arrays.items()}}
        buffer = io.BytesIO()
        np.savez(buffer, **merged)
        replace_file("golden.npz", buffer.getvalue())

    return change


def loaded(folder):
    bundle = Bundle.open(folder)
    return LoadedModel(bundle, bundle.artifact("ort-float32"))


@pytest.mark.parametrize("kind", ["text", "npy"])
def test_golden_file_that_is_none(refused, bundle_copy, replace_file, kind):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    replace_file("golden.npz", b"no zip" if kind == "text" else buffer.getvalue())
    with loaded(bundle_copy) as runner, refused(IntegrityError):
        check_golden(runner)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4)), np.zeros((5, 3)), np.zeros((0, 4)), np.zeros((1, 4)), np.array("a")]
)
def test_golden_vectors_of_another_shape(refused, bundle_copy, golden, array):
    golden(**{"ort-float32__0": array})
    with loaded(bundle_copy) as runner, refused(IntegrityError):
        check_golden(runner)


@pytest.mark.parametrize("counts", [(4, 3), (2, 4), (4, 1)])
def test_inputs_of_different_batch_sizes(refused, tmp_path, counts):
    from onnx import TensorProto as T
    from onnx import helper as h

    values = [
        h.make_tensor_value_info(n, T.FLOAT, ["N", *s])
        for n, s in (("a", (1, 3)), ("b", (3, 1)), ("y", (1, 1)))
    ]
    graph = h.make_graph([h.make_node("MatMul", ["a", "b"], ["y"])], "g", values[:2], values[2:])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    ins = (TensorSpec("a", (None, 1, 3), "float32"), TensorSpec("b", (None, 3, 1), "float32"))
    outs = (TensorSpec("y", (None, 1, 1), "float32"),)
    artifact = Artifact("ort-float32", "ort", "float32", "m.onnx", ins, outs, ())
    write_manifest(
        tmp_path,
        Manifest(
            "m",
            TaskRecord("t", "top1", ()),
            ins,
            outs,
            None,
            (artifact,),
            record_files(tmp_path),
            (),
            {},
            "l",
            "d",
        ),
    )
    with Runner.open(tmp_path) as runner, refused(BadInputError):
        runner(np.ones((counts[0], 1, 3), np.float32), np.ones((counts[1], 3, 1), np.float32))


def test_runner_can_be_closed_twice(compressed):
    with Runner.open(compressed.bundle.folder) as runner:
        runner.close()


def test_artifact_of_another_backend(refused, compressed):
    with refused(BadInputError):
        Runner.open(compressed.bundle.folder, artifact="ort-int8", backend="tflite").close()


def test_litert_refusal_is_one_line(refused, compressed):
    artifact = compressed.bundle.artifact("tflite-float32")
    model = schema.ModelT.InitFromPackedBuf(bytearray(compressed.bundle.read(artifact.path)))
    model.subgraphs[0].operators[0].outputs = np.array([10_000], np.int32)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    with refused(BadInputError, "LiteRT refuses"):
        LiteRTBackend().load(bytes(builder.Output()), artifact, 1)


def test_onnxruntime_keeps_off_stdout(compressed, capfd):
    artifact = compressed.bundle.artifact("ort-float32")
    model = bytearray(compressed.bundle.read(artifact.path))
    model[model.index(b"depthwise.weight")] = 0xFF
    with pytest.raises(BadInputError):
        OnnxRuntimeBackend().load(bytes(model), artifact, 1)
    assert capfd.readouterr().out == ""


def npy_header(text):
    header = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize(
    "content",
    [
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3"),
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
    ],
)
def test_array_file_with_a_damaged_header(refused, tmp_path, manifest, content):
    (tmp_path / "a.npy").write_bytes(content)
    with refused(BadInputError, "a.npy"):
        list(read_inputs(str(tmp_path / "a.npy"), manifest))


def zip_with(flags=0, version=20):
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((1, 3, 12, 12), np.float32))
    raw = bytearray(buffer.getvalue())
    central = raw.index(b"PK\x01\x02")
    raw[6] |= flags
    raw[central + 8] |= flags
    raw[4] = version
    raw[central + 6] = version
    return bytes(raw)


def zip_of_text():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [zip_with(flags=1), zip_with(flags=64), zip_with(version=119), zip_of_text()],
    ids=["encrypted", "strongly encrypted", "newer version", "no arrays"],
)
def test_zip_that_numpy_cannot_take(refused, tmp_path, manifest, content):
    (tmp_path / "a.npz").write_bytes(content)
    with refused(BadInputError, "a.npz"):
        list(read_inputs(str(tmp_path / "a.npz"), manifest))


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    found = ImagePreprocessing(4, 6, "L").read(tmp_path / "a.png")[0, ..., 0]
    assert np.abs(found.astype(int) - ramp // 257).max() <= 1


def test_phone_picture_is_turned_upright(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels[::-1, ::-1]).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(
        ImagePreprocessing(4, 6, "RGB").read(tmp_path / "a.png")[0], pixels
    )


@pytest.mark.parametrize(
    "wrong", [{"mean": (0.5, 0.5)}, {"std": (0.5, 0.5)}, {"std": (1.0, 0.0, 1.0)}]
)
def test_mean_and_std_have_one_value_per_channel(refused, wrong):
    with refused(BadInputError):
        ImagePreprocessing(4, 6, "RGB", **wrong)(np.zeros((1, 4, 6, 3), np.uint8))


@pytest.mark.parametrize(
    "pixels", [np.full((2, 12, 12, 3), 0.7, np.float32), np.full((2, 12, 12, 3), 300)]
)
def test_pictures_that_are_not_uint8_are_not_cut(pixels):
    task = ArrayTask(
        "t",
        {"test": lambda: Samples((pixels,), np.arange(2))},
        preprocessing=ImagePreprocessing(12, 12, "RGB"),
    )
    try:
        (batch,) = task.batches("test", 2)
    except BadInputError:
        return
    np.testing.assert_array_equal(batch.inputs[0], pixels)


def test_drop_interval_stays_possible():
    estimate = paired_drop(np.ones(10), np.zeros(10))
    assert -1 <= estimate.lo <= estimate.value <= estimate.hi <= 1


def test_interval_holds_the_value():
    estimate = mean_score(np.ones(10))
    assert estimate.lo <= estimate.value <= estimate.hi
