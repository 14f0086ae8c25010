"""Preprocessing as data: what happens between a picture and the network's input tensor."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.sequence import SequencePreprocessing
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 100_000_000


class ImagePreprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="image"):
    """Turns pictures into float32 tensors: ``(pixel * scale - mean) / std`` per channel.

    Attributes:
        height: input height in pixels.
        width: input width in pixels.
        mode: "L" (grey, one channel) or "RGB".
        scale: factor on the 8-bit pixel; 1/255 maps it to 0..1.
        mean: subtracted after scaling, one value per channel; empty means 0.
        std: divided by after that, one value per channel; empty means 1.
    """

    height: int
    width: int
    mode: Literal["L", "RGB"]
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Reject sizes and statistics that cannot be applied."""
        if self.height < 1 or self.width < 1:
            raise BadInputError(
                f"height and width must be at least 1, got {self.height}, {self.width}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, self.channels):
                raise BadInputError(f"{name} needs {self.channels} values, got {len(values)}")
        if 0.0 in self.std:
            raise BadInputError("std must not be 0")

    @property
    def channels(self) -> int:
        """Number of channels of the input tensor."""
        return 1 if self.mode == "L" else 3

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Map uint8 [N, H, W, C] to float32 [N, C, H, W].

        Raises:
            BadInputError: when dtype or shape do not fit.
        """
        expected = (self.height, self.width, self.channels)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != expected:
            raise BadInputError(
                f"pictures must be uint8 [N, {self.height}, {self.width}, {self.channels}], "
                f"got {pixels.dtype} {list(pixels.shape)}"
            )
        x = pixels.astype(np.float32) * np.float32(self.scale)
        if self.mean:
            x -= np.asarray(self.mean, np.float32)
        if self.std:
            x /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))

    def read(self, path: Path) -> npt.NDArray[np.uint8]:
        """Read a picture file as uint8 [1, H, W, C], upright, converted and resized to fit.

        The camera's orientation mark is applied, 16-bit grey becomes 8-bit, resizing is bilinear.

        Raises:
            BackendUnavailableError: pillow is not installed.
            BadInputError: the file is not a picture that pillow can read.
        """
        try:
            from PIL import Image, ImageOps
        except ImportError as error:
            raise BackendUnavailableError.of(error, _without_pillow()) from error
        try:
            with warnings.catch_warnings():
                # The limit below takes the place of pillow's own.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                opened = Image.open(path)
            with opened as picture:
                # Only the head has been read so far: a small file can be a huge picture.
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError(
                        f"it has {picture.width} x {picture.height} pixels, at most "
                        f"{MOST_PIXELS // 10**6} million are read"
                    )
                upright = ImageOps.exif_transpose(picture)
                converted = _to_8_bit(upright).convert(self.mode)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadInputError(f"{path} is not a readable picture ({error})") from error
        return self._resized(converted)

    def fit(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Convert and resize a picture, uint8 [H, W, 3] in RGB, as ``read`` does a file's.

        Returns:
            uint8 [1, H, W, C].

        Raises:
            BackendUnavailableError: pillow is not installed.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise BackendUnavailableError.of(error, _without_pillow()) from error
        return self._resized(Image.fromarray(pixels).convert(self.mode))

    def _resized(self, picture: "Image.Image") -> npt.NDArray[np.uint8]:
        from PIL import Image

        if picture.size != (self.width, self.height):
            picture = picture.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(picture, np.uint8).reshape(1, self.height, self.width, self.channels)


def _without_pillow() -> str:
    return f"pillow is missing, it reads pictures: {install_line('image')}"


def _to_8_bit(picture: "Image.Image") -> "Image.Image":
    """Scale 16-bit grey to 8 bits; pillow alone would saturate it."""
    if picture.mode not in ("I", "I;16", "I;16B", "I;16L"):
        return picture
    from PIL import Image

    values = np.asarray(picture, np.float32) / 257
    np.rint(values, out=values)
    return Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))


Preprocessing = ImagePreprocessing | SequencePreprocessing
