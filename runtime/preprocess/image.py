"""Pictures as data: their size, colours and scale, and how a file becomes such a picture."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line
from edgedl.runtime.preprocess.reading import Array, Reading

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 100_000_000
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class ImagePreprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="image"):
    """Turns pictures into float32 tensors: ``(pixel * scale - mean) / std`` per channel.

    Attributes:
        height: input height in pixels.
        width: input width in pixels.
        mode: "L" (grey, one channel), "RGB", or "BGR" (as OpenCV has them).
        scale: factor on the 8-bit pixel; 1/255 maps it to 0..1.
        mean: subtracted after scaling, one value per channel; empty means 0.
        std: divided by after that, one value per channel; empty means 1.
        resize: how a picture of another size fits. "stretch": each side is resized. "crop": the
            shorter side is resized to ``shorter_side`` and the middle is cut out, as torchvision's
            Resize and CenterCrop do. "letterbox": it is resized to lie inside, in the middle of
            ``fill``, as YOLO has it.
        shorter_side: in pixels, for "crop"; 0 for as little as the cut needs.
        interpolation: of pillow, which averages over what a pixel covers.
        fill: 8-bit value around a picture in a letterbox.
    """

    height: int
    width: int
    mode: Literal["L", "RGB", "BGR"]
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: Literal["stretch", "crop", "letterbox"] = "stretch"
    shorter_side: int = 0
    interpolation: Interpolation = "bilinear"
    fill: int = 0

    takes: ClassVar[str] = "pictures"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

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
        if self.shorter_side and self.resize != "crop":
            raise BadInputError(f"shorter_side is for resize='crop', not '{self.resize}'")
        if self.shorter_side and self.shorter_side < max(self.height, self.width):
            raise BadInputError(
                f"a picture with a shorter side of {self.shorter_side} has no middle of "
                f"{self.height} x {self.width}"
            )
        if not 0 <= self.fill <= 255:
            raise BadInputError(f"fill must be 0 to 255, got {self.fill}")

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

    def inputs_of(self, path: Path) -> Reading:
        """Read a picture file: float32 [1, C, H, W].

        Raises:
            BackendUnavailableError: pillow is not installed.
            BadInputError: the file is not a picture that pillow can read.
        """
        return Reading((self(self.read(path)),))

    def from_raw(self, x: Array) -> Array:
        """Map uint8 pictures [N, H, W, C], or one [H, W, C], to float32 [N, C, H, W].

        Raises:
            BadInputError: they have another size.
        """
        if x.dtype != np.uint8:
            return x
        return self(np.asarray(x[None] if x.ndim == 3 else x, np.uint8))

    def read(self, path: Path) -> npt.NDArray[np.uint8]:
        """Read a picture file as uint8 [1, H, W, C], upright, converted and resized to fit.

        The camera's orientation mark is applied, 16-bit grey becomes 8-bit.

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
                converted = _to_8_bit(upright).convert(self._colours)
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
        return self._resized(Image.fromarray(pixels).convert(self._colours))

    @property
    def _colours(self) -> Literal["L", "RGB"]:
        return "L" if self.mode == "L" else "RGB"

    def _resized(self, picture: "Image.Image") -> npt.NDArray[np.uint8]:
        fitted = {"stretch": self._stretched, "crop": self._cropped, "letterbox": self._boxed}
        pixels = np.asarray(fitted[self.resize](picture), np.uint8)
        if self.mode == "BGR":
            pixels = pixels[..., ::-1]
        return pixels.reshape(1, self.height, self.width, self.channels)

    def _stretched(self, picture: "Image.Image") -> "Image.Image":
        return self._to_size(picture, self.width, self.height)

    def _cropped(self, picture: "Image.Image") -> "Image.Image":
        width, height = picture.size
        if self.shorter_side:
            short = min(width, height)
            # torchvision rounds the longer side down.
            width = self.shorter_side * width // short
            height = self.shorter_side * height // short
        else:
            factor = max(self.width / width, self.height / height)
            width = max(self.width, round(width * factor))
            height = max(self.height, round(height * factor))
        resized = self._to_size(picture, width, height)
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        return resized.crop((left, top, left + self.width, top + self.height))

    def _boxed(self, picture: "Image.Image") -> "Image.Image":
        from PIL import Image

        factor = min(self.width / picture.width, self.height / picture.height)
        width = max(1, round(picture.width * factor))
        height = max(1, round(picture.height * factor))
        fill = (self.fill,) * self.channels if self.channels > 1 else self.fill
        box = Image.new(self._colours, (self.width, self.height), fill)
        place = (self.width - width) // 2, (self.height - height) // 2
        box.paste(self._to_size(picture, width, height), place)
        return box

    def _to_size(self, picture: "Image.Image", width: int, height: int) -> "Image.Image":
        from PIL import Image

        if picture.size == (width, height):
            return picture
        return picture.resize((width, height), Image.Resampling[self.interpolation.upper()])


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
