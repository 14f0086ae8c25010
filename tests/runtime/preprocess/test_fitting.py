"""Pictures of another size: stretched, cut or boxed, against what others do with pillow alone."""

import numpy as np
import pytest
from PIL import Image

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing

SIZES = [(300, 200), (200, 300), (257, 255), (64, 64), (50, 400), (31, 33)]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def picture(width, height, mode="RGB"):
    rng = np.random.default_rng(width * height)
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_the_middle_is_cut_as_torchvision_does(tmp_path, size, interpolation):
    """Resize(64) and CenterCrop(56) of torchvision 0.2x, written out."""
    image = picture(*size)
    image.save(tmp_path / "a.png")
    width, height = size
    short = min(size)
    new = (64, int(64 * height / width)) if short == width else (int(64 * width / height), 64)
    resized = image.resize(new, FILTERS[interpolation])
    top, left = round((new[1] - 56) / 2.0), round((new[0] - 56) / 2.0)
    expected = np.asarray(resized)[top : top + 56, left : left + 56]
    found = ImagePreprocessing(
        56, 56, "RGB", resize="crop", shorter_side=64, interpolation=interpolation
    ).read(tmp_path / "a.png")
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 64), (64, 40)])
def test_a_cut_without_a_shorter_side_loses_as_little_as_it_can(tmp_path, size, height, width):
    picture(*size).save(tmp_path / "a.png")
    found = ImagePreprocessing(height, width, "RGB", resize="crop").read(tmp_path / "a.png")
    assert found.shape == (1, height, width, 3)
    factor = max(width / size[0], height / size[1])
    scaled = max(width, round(size[0] * factor)), max(height, round(size[1] * factor))
    assert width == scaled[0] or height == scaled[1]
    whole = np.asarray(picture(*size).resize(scaled, Image.Resampling.BILINEAR))
    top, left = round((scaled[1] - height) / 2), round((scaled[0] - width) / 2)
    np.testing.assert_array_equal(found[0], whole[top : top + height, left : left + width])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "BGR", "L"])
def test_a_letterbox_holds_the_whole_picture(tmp_path, size, mode):
    colours = "L" if mode == "L" else "RGB"
    image = picture(*size, colours)
    image.save(tmp_path / "a.png")
    found = ImagePreprocessing(64, 96, mode, resize="letterbox", fill=114).read(tmp_path / "a.png")
    factor = min(96 / size[0], 64 / size[1])
    width, height = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    top, left = (64 - height) // 2, (96 - width) // 2
    inner = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    inner = inner.reshape(height, width, -1)
    expected = np.full((64, 96, inner.shape[-1]), 114, np.uint8)
    expected[top : top + height, left : left + width] = inner[..., :: -1 if mode == "BGR" else 1]
    np.testing.assert_array_equal(found[0], expected)


def test_a_video_frame_is_fitted_as_a_file_is(tmp_path):
    image = picture(300, 200)
    image.save(tmp_path / "a.png")
    for resize in ("stretch", "crop", "letterbox"):
        fitted = ImagePreprocessing(32, 32, "BGR", resize=resize)
        np.testing.assert_array_equal(
            fitted.fit(np.asarray(image)), fitted.read(tmp_path / "a.png")
        )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shorter_side": 256}, ("shorter_side is for resize='crop'", "'stretch'")),
        ({"resize": "crop", "shorter_side": 16}, ("no middle of 32 x 32",)),
        ({"fill": 300}, ("fill must be 0 to 255, got 300",)),
    ],
)
def test_settings_that_cannot_be(refused, settings, words):
    with refused(BadInputError, *words):
        ImagePreprocessing(32, 32, "RGB", **settings)
