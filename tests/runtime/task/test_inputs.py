"""Reading what people point at: arrays, pictures, folders, stdin, and what is none of these."""

import io
import pickle
import sys

import msgspec
import numpy as np
import pytest
from PIL import Image

from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.inputs import read_inputs


@pytest.fixture(scope="module")
def two_arrays(manifest):
    """The manifest of a network that takes two plain arrays."""
    inputs = (TensorSpec("tokens", (None, 3), "float32"), TensorSpec("mask", (None, 2), "float32"))
    return msgspec.structs.replace(manifest, inputs=inputs, preprocessing=None)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)


def read_one(where, manifest):
    (item,) = read_inputs(str(where), manifest)
    assert item.source == str(where)
    return item.arrays


def as_input(pixels):
    """What the tiny network takes for these pixels."""
    return pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255


def test_float_array_is_taken_as_it_is(tmp_path, manifest, images):
    np.save(tmp_path / "a.npy", images)
    (found,) = read_one(tmp_path / "a.npy", manifest)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images)


def test_single_sample_gets_a_batch_dimension(tmp_path, manifest, images):
    np.save(tmp_path / "a.npy", images[0])
    np.testing.assert_array_equal(read_one(tmp_path / "a.npy", manifest)[0], images[:1])


@pytest.mark.parametrize("index", [slice(None), 0])
def test_raw_pixels_are_preprocessed(tmp_path, manifest, pixels, index):
    np.save(tmp_path / "a.npy", pixels[index])
    (found,) = read_one(tmp_path / "a.npy", manifest)
    np.testing.assert_allclose(found, as_input(pixels[index].reshape(-1, 12, 12, 3)), atol=1e-6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["x", "anything"])
def test_npz_with_one_array(tmp_path, manifest, images, save, name):
    save(tmp_path / "a.npz", **{name: images})
    np.testing.assert_array_equal(read_one(tmp_path / "a.npz", manifest)[0], images)


def test_npz_by_input_name(tmp_path, two_arrays):
    tokens, mask = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    np.savez(tmp_path / "a.npz", mask=mask, note=np.arange(9), tokens=tokens)
    found = read_one(tmp_path / "a.npz", two_arrays)
    assert [x.shape for x in found] == [(4, 3), (4, 2)]
    np.testing.assert_array_equal(found[0], tokens)


def test_npz_in_order_when_the_names_are_unknown(tmp_path, two_arrays):
    np.savez(tmp_path / "a.npz", np.ones((4, 3), np.float32), np.zeros(2, np.float32))
    assert [x.shape for x in read_one(tmp_path / "a.npz", two_arrays)] == [(4, 3), (1, 2)]


def test_uint8_stays_as_it_is_without_preprocessing(tmp_path, two_arrays):
    np.savez(tmp_path / "a.npz", tokens=np.ones((4, 3), np.uint8), mask=np.ones((4, 2), np.uint8))
    assert [x.dtype for x in read_one(tmp_path / "a.npz", two_arrays)] == [np.uint8, np.uint8]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".ppm"])
def test_picture(tmp_path, manifest, pixels, suffix):
    Image.fromarray(pixels[0]).save(tmp_path / f"a{suffix}")
    (found,) = read_one(tmp_path / f"a{suffix}", manifest)
    np.testing.assert_allclose(found, as_input(pixels[:1]), atol=1e-6)


def fill(folder, pixels):
    Image.fromarray(pixels[2]).save(folder / "c.png")
    np.save(folder / "a.npy", pixels[0])
    Image.fromarray(pixels[1]).save(folder / "b.BMP")
    (folder / "notes.txt").write_text("not an input")
    (folder / "deeper").mkdir()


def test_folder_in_order_of_names(tmp_path, manifest, pixels):
    fill(tmp_path, pixels)
    found = list(read_inputs(str(tmp_path), manifest))
    assert [item.source for item in found] == [
        str(tmp_path / n) for n in ("a.npy", "b.BMP", "c.png")
    ]
    stacked = np.concatenate([item.arrays[0] for item in found])
    np.testing.assert_allclose(stacked, as_input(pixels), atol=1e-6)


def test_stream_of_paths(refused, tmp_path, manifest, pixels, monkeypatch):
    fill(tmp_path, pixels)
    lines = f"{tmp_path}/c.png\n\n   {tmp_path}/a.npy  \n{tmp_path}/gone.png\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    stream = read_inputs("-", manifest)
    np.testing.assert_allclose(next(stream).arrays[0], as_input(pixels[2:]), atol=1e-6)
    assert next(stream).source == f"{tmp_path}/a.npy"
    with refused(BadInputError, "gone.png"):
        next(stream)


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def broken(tmp_path):
    """Write one broken file of each kind."""
    np.save(tmp_path / "whole.npy", np.ones((50, 50)))
    np.savez_compressed(tmp_path / "whole.npz", np.random.default_rng(0).random((50, 50)))
    whole, archive = (tmp_path / f"whole.{s}" for s in ("npy", "npz"))
    np.save(tmp_path / "objects.npy", np.array([Boom()], object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.array([Boom()], object))
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Boom()))
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "header.npy").write_bytes(whole.read_bytes()[:40])
    (tmp_path / "cut.npz").write_bytes(archive.read_bytes()[:-100])
    flipped = bytearray(archive.read_bytes())
    flipped[len(flipped) // 2] ^= 0x55
    (tmp_path / "flipped.npz").write_bytes(flipped)
    name, extra = (int.from_bytes(archive.read_bytes()[at : at + 2], "little") for at in (26, 28))
    flipped = bytearray(archive.read_bytes())
    flipped[30 + name + extra] = 7  # a deflate block of a type that does not exist
    (tmp_path / "deflate.npz").write_bytes(flipped)
    (tmp_path / "text.png").write_text("not a picture")


@pytest.mark.parametrize(
    "name",
    ["objects.npy", "objects.npz", "pickle.npy", "text.npy", "empty.npy", "empty.npz", "cut.npy",
     "header.npy", "cut.npz", "flipped.npz", "deflate.npz", "text.png"],
)  # fmt: skip
def test_broken_file(refused, tmp_path, manifest, name):
    broken(tmp_path)
    with refused(BadInputError, name, "readable"):
        list(read_inputs(str(tmp_path / name), manifest))


def test_nothing_there(refused, tmp_path, manifest):
    with refused(BadInputError, "no file or folder", "gone"):
        list(read_inputs(str(tmp_path / "gone"), manifest))
    (tmp_path / "notes.txt").write_text("")
    with refused(BadInputError, str(tmp_path), "holds no pictures or arrays"):
        list(read_inputs(str(tmp_path), manifest))


@pytest.mark.parametrize("count", [1, 3])
def test_wrong_number_of_arrays(refused, tmp_path, two_arrays, count):
    np.savez(tmp_path / "a.npz", *[np.ones((1, 3), np.float32)] * count)
    with refused(BadInputError, f"{count} arrays", "takes 2", "tokens, mask"):
        list(read_inputs(str(tmp_path / "a.npz"), two_arrays))


def test_npy_for_two_inputs(refused, tmp_path, two_arrays):
    np.save(tmp_path / "a.npy", np.ones((1, 3), np.float32))
    with refused(BadInputError, "1 arrays", "takes 2"):
        list(read_inputs(str(tmp_path / "a.npy"), two_arrays))


def test_picture_for_a_network_that_takes_arrays(refused, tmp_path, two_arrays, pixels):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    with refused(BadInputError, "a.png", "takes arrays"):
        list(read_inputs(str(tmp_path / "a.png"), two_arrays))


@pytest.mark.parametrize("shape", [(11, 12, 3), (2, 12, 12, 1), (12, 12)])
def test_raw_pixels_of_another_size(refused, tmp_path, manifest, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with refused(BadInputError, "12, 12, 3"):
        list(read_inputs(str(tmp_path / "a.npy"), manifest))
