"""CSV files as inputs: named windows, folders and streams, and networks that take others."""

import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgedl.runtime.bundle.manifest import Manifest, TaskRecord, TensorSpec
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.preprocess.sequence import SequencePreprocessing
from edgedl.runtime.task.inputs import NamedInputs, read_inputs

WINDOW, HOP = 4, 3


def make_manifest(shape, preprocessing):
    """Return the manifest of a network with one input; it needs no files to read inputs."""
    spec, logits = TensorSpec("x", shape, "float32"), TensorSpec("y", (None, 2), "float32")
    task = TaskRecord("toy", "top1", ("yes", "no"))
    return Manifest("toy", task, (spec,), (logits,), preprocessing, (), {}, (), {}, "none", "none")


@pytest.fixture(scope="module")
def sequences():
    cut = SequencePreprocessing(("x", "y"), WINDOW, HOP, 50.0)
    return make_manifest((None, None, 2), cut)


@pytest.fixture(scope="module")
def pictures():
    return make_manifest((None, 3, 12, 12), ImagePreprocessing(12, 12, "RGB"))


@pytest.fixture(scope="module")
def arrays_only():
    return make_manifest((None, 6, 2), None)


def write_csv(path, rows, first=0):
    """Write rows that tell where they are: x = first + row, y = -x; return them."""
    values = [[first + i, -(first + i)] for i in range(rows)]
    path.write_text("".join(["t,y,x\n", *(f"0,{y},{x}\n" for x, y in values)]))
    return np.array(values, np.float32)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 30))
def test_windows_and_their_names(tmp_path_factory, sequences, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    values = write_csv(path, rows, first=1)
    (item,) = read_inputs(str(path), sequences)
    (found,) = item.arrays
    assert found.dtype == np.float32
    covered = []
    for i, window in enumerate(found):
        begin = int(window[0, 0])  # rows are numbered from 1
        end = begin + len(window) - 1
        assert item.name(i) == f"{path} rows {begin} to {end}"
        np.testing.assert_array_equal(window, values[begin - 1 : end])
        covered.append((begin, end))
    expected = [(b, b + WINDOW - 1) for b in range(1, rows - WINDOW + 2, HOP)]
    assert covered == (expected or [(1, rows)])


@pytest.mark.parametrize("suffix", [".csv", ".CSV"])
def test_suffix_in_any_case(tmp_path, sequences, suffix):
    values = write_csv(tmp_path / f"a{suffix}", WINDOW)
    (item,) = read_inputs(str(tmp_path / f"a{suffix}"), sequences)
    np.testing.assert_array_equal(item.arrays[0], values[None])


def test_folder_of_tables_in_order_of_names(tmp_path, sequences):
    for first, name in ((100, "b.csv"), (0, "a.csv"), (200, "c.CSV")):
        write_csv(tmp_path / name, WINDOW + HOP, first)
    np.save(tmp_path / "d.npy", np.full((5, 2), 300, np.float32))
    (tmp_path / "notes.txt").write_text("not an input")
    (tmp_path / "deeper").mkdir()
    found = list(read_inputs(str(tmp_path), sequences))
    assert [item.source for item in found] == [
        str(tmp_path / n) for n in ("a.csv", "b.csv", "c.CSV", "d.npy")
    ]
    assert [item.arrays[0].shape for item in found] == [(2, 4, 2)] * 3 + [(1, 5, 2)]
    assert [item.arrays[0][0, 0, 0] for item in found] == [0, 100, 200, 300]
    assert found[1].name(1) == f"{tmp_path}/b.csv rows 4 to 7"
    assert found[3].name(0) == f"{tmp_path}/d.npy"


def test_folder_stops_at_the_broken_table(refused, tmp_path, sequences):
    write_csv(tmp_path / "a.csv", WINDOW)
    (tmp_path / "b.csv").write_text("x,y\n1,two\n")
    stream = read_inputs(str(tmp_path), sequences)
    assert next(stream).source.endswith("a.csv")
    with refused(BadInputError, "b.csv", "line 2", "'two'"):
        next(stream)


def test_stream_of_tables(refused, tmp_path, sequences, monkeypatch):
    values = write_csv(tmp_path / "with space.csv", WINDOW)
    lines = f"  {tmp_path}/with space.csv  \n\n{tmp_path}/gone.csv\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    stream = read_inputs("-", sequences)
    np.testing.assert_array_equal(next(stream).arrays[0][0], values)
    with refused(BadInputError, "no file", "gone.csv"):
        next(stream)


@pytest.mark.parametrize("content", ["", "x,y\n", "x,y\n1,2\n", "x,y\nnan,2\n", "\x00"])
def test_table_for_a_network_of_pictures(refused, tmp_path, pictures, content):
    (tmp_path / "a.csv").write_text(content)
    with refused(BadInputError, "a.csv", "takes pictures", "not '.csv' files"):
        list(read_inputs(str(tmp_path / "a.csv"), pictures))


def test_table_for_a_network_of_arrays(refused, tmp_path, arrays_only):
    write_csv(tmp_path / "a.csv", WINDOW)
    with refused(BadInputError, "a.csv", "takes arrays (.npy, .npz)", "not '.csv' files"):
        list(read_inputs(str(tmp_path / "a.csv"), arrays_only))


def test_what_lies_among_pictures_is_left_alone(tmp_path, pictures):
    pixels = np.zeros((12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write_csv(tmp_path / "b.csv", WINDOW)
    (found,) = read_inputs(str(tmp_path), pictures)
    assert found.source.endswith("a.png")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".JPG", ".bmp"])
def test_picture_for_a_network_of_sequences(refused, tmp_path, sequences, suffix, whole):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    if not whole:
        path.write_bytes(path.read_bytes()[:10])
    with refused(BadInputError, path.name, "takes CSV files", f"not '{suffix.lower()}' files"):
        list(read_inputs(str(path), sequences))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64"])
@pytest.mark.parametrize("shape", [(6, 2), (1, 6, 2), (3, 6, 2)])
def test_arrays_for_a_network_of_sequences(tmp_path, sequences, dtype, shape):
    # No window is cut and no pixel is scaled: an array is taken as it is.
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    (item,) = read_inputs(str(tmp_path / "a.npy"), sequences)
    np.testing.assert_array_equal(item.arrays[0], values.reshape(-1, 6, 2))
    assert item.arrays[0].dtype == dtype


@pytest.mark.parametrize(
    ("count", "parts", "names"),
    [
        (1, (), ["a"]),
        (3, (), ["a[0]", "a[1]", "a[2]"]),
        (1, ("rows 1 to 9",), ["a rows 1 to 9"]),
        (2, ("first", "second"), ["a first", "a second"]),
    ],
)
def test_names_of_samples(count, parts, names):
    item = NamedInputs("a", (np.zeros((count, 2), np.float32),), parts)
    assert [item.name(i) for i in range(count)] == names
