"""Preprocessing as data: what happens between a picture and the network's input tensor."""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BackendUnavailableError, BadInputError


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
        """Read a picture file as uint8 [1, H, W, C], converted and resized (bilinear) to fit.

        Raises:
            BackendUnavailableError: pillow is not installed.
            BadInputError: the file is not a picture that pillow can read.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise BackendUnavailableError(
                "pillow is missing, it reads pictures: pip install 'edgedl[image]'"
            ) from error
        try:
            with Image.open(path) as picture:
                converted = picture.convert(self.mode)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadInputError(f"{path} is not a readable picture ({error})") from error
        if converted.size != (self.width, self.height):
            converted = converted.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(converted, np.uint8).reshape(1, self.height, self.width, self.channels)
