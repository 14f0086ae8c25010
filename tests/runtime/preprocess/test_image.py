"""Preprocessing against loops over pixels, and pictures of every sort."""

import resource
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing

RGB = ImagePreprocessing(4, 6, "RGB")
GREY = ImagePreprocessing(4, 6, "L")


def picture(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    mode=st.sampled_from(["L", "RGB"]),
    scale=st.sampled_from([1.0, 1 / 255, 1 / 127.5]),
    mean=st.none() | st.floats(-1, 1),
    std=st.none() | st.floats(0.1, 2),
)
def test_against_a_loop_over_pixels(seed, mode, scale, mean, std):
    channels = 1 if mode == "L" else 3
    means = () if mean is None else tuple(mean + 0.1 * c for c in range(channels))
    stds = () if std is None else tuple(std + 0.1 * c for c in range(channels))
    pixels = picture(seed, (2, 3, 5, channels))
    found = ImagePreprocessing(3, 5, mode, scale, means, stds)(pixels)
    assert found.dtype == np.float32
    assert found.shape == (2, channels, 3, 5)
    assert found.flags.c_contiguous
    for n, y, x, c in np.ndindex(pixels.shape):
        value = int(pixels[n, y, x, c]) * scale - (means[c] if means else 0)
        value /= stds[c] if stds else 1
        assert found[n, c, y, x] == pytest.approx(value, rel=1e-5, abs=1e-5)


def test_pixels_are_not_changed():
    pixels = picture(0, (1, 4, 6, 3))
    before = pixels.copy()
    ImagePreprocessing(4, 6, "RGB", 1.0, (1.0, 2.0, 3.0), (2.0, 2.0, 2.0))(pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 4, 6, 3), np.float32),
        ((1, 4, 6, 3), np.int64),
        ((1, 6, 4, 3), np.uint8),
        ((1, 3, 4, 6), np.uint8),
        ((4, 6, 3), np.uint8),
        ((1, 4, 6, 1), np.uint8),
        ((1, 4, 6), np.uint8),
        ((), np.uint8),
    ],
)
def test_wrong_pixels(refused, shape, dtype):
    with refused(BadInputError, "uint8 [N, 4, 6, 3]", np.dtype(dtype).name):
        RGB(np.zeros(shape, dtype))


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif"])
def test_lossless_picture_is_read_pixel_for_pixel(tmp_path, suffix):
    pixels = picture(1, (4, 6, 3))
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    found = RGB.read(tmp_path / f"a.{suffix}")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels[None])


def test_jpeg_is_read_nearly(tmp_path):
    smooth = np.linspace(0, 255, 24).reshape(4, 6, 1).repeat(3, axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    difference = RGB.read(tmp_path / "a.jpg")[0].astype(int) - smooth
    assert np.abs(difference).max() <= 8


def test_colour_becomes_grey_by_luma_weights(tmp_path):
    pixels = picture(2, (4, 6, 3))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    found = GREY.read(tmp_path / "a.png")
    assert found.shape == (1, 4, 6, 1)
    assert np.abs(found[0, ..., 0] - luma).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    pixels = picture(3, (4, 6, 3)) // 128 * 255
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(pixels).convert(mode).save(tmp_path / f"a.{suffix}")
    found = RGB.read(tmp_path / f"a.{suffix}")
    assert found.shape == (1, 4, 6, 3)
    if mode in {"RGBA", "P", "CMYK"}:
        np.testing.assert_array_equal(found[0], pixels)
    else:
        assert (found[..., :1] == found).all()


def test_halving_is_the_triangle_filter(tmp_path):
    pixels = picture(4, (8, 12))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = GREY.read(tmp_path / "a.png")[0, ..., 0]
    weights = np.array([1, 3, 3, 1]) / 8
    for y, x in [(1, 1), (1, 4), (2, 2), (2, 3)]:
        window = pixels[2 * y - 1 : 2 * y + 3, 2 * x - 1 : 2 * x + 3]
        assert abs(int(found[y, x]) - weights @ window @ weights) <= 1.5


def test_resizing_keeps_a_plain_colour(tmp_path):
    Image.new("RGB", (31, 5), (10, 200, 77)).save(tmp_path / "a.png")
    found = RGB.read(tmp_path / "a.png")
    np.testing.assert_array_equal(found, np.broadcast_to([10, 200, 77], (1, 4, 6, 3)))


def bomb():
    """Return a PNG of 60 bytes that promises 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.png", b"this is no picture"),
        ("empty.png", b""),
        ("signature.png", b"\x89PNG\r\n\x1a\n"),
        ("zeros.jpg", bytes(1000)),
        ("bomb.png", bomb()),
    ],
)
def test_unreadable_picture(refused, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with refused(BadInputError, name, "not a readable picture"):
        RGB.read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "ppm"])
def test_picture_cut_short(refused, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(5, (40, 60, 3))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with refused(BadInputError, f"a.{suffix}", "not a readable picture"):
        RGB.read(path)


def test_a_small_file_that_is_a_huge_picture_is_refused_undecoded(refused, tmp_path):
    # 1.3 MB of zeros that unpack to 169 million pixels.
    Image.new("L", (13_000, 13_000)).save(tmp_path / "x.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused(BadInputError, "x.png", "13000 x 13000 pixels", "at most 100 million"):
        ImagePreprocessing(8, 8, "RGB").read(tmp_path / "x.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_every_value_of_16_bit_grey_is_rounded_to_the_nearest_of_8(tmp_path):
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "x.png")
    found = ImagePreprocessing(256, 256, "L").read(tmp_path / "x.png")[0, :, :, 0]
    np.testing.assert_array_equal(found, np.rint(values / 257.0).astype(np.uint8))


def test_no_such_picture(refused, tmp_path):
    with refused(BadInputError, "gone.png"):
        RGB.read(tmp_path / "gone.png")


def test_without_pillow(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with refused(BackendUnavailableError, "pillow", "[image]'"):
        RGB.read(tmp_path / "a.png")
