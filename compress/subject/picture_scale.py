"""Whether pictures are on the scale that their preprocessing says."""

from dataclasses import dataclass

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.image import ImagePreprocessing

# No network takes larger numbers than raw pixels are.
LARGEST = 256.0
BRIGHTEST = 255
# Preprocessed values that lie farther apart than this are raw pixels.
RAW = 100.0


@dataclass(frozen=True)
class Scale:
    """The least and the largest value that a pixel has after preprocessing."""

    least: float
    largest: float

    @classmethod
    def of(cls, preprocessing: ImagePreprocessing) -> "Scale":
        """Return that of all channels together."""
        mean = np.asarray(preprocessing.mean or (0.0,))
        std = np.asarray(preprocessing.std or (1.0,))
        ends = [(pixel * preprocessing.scale - mean) / std for pixel in (0, BRIGHTEST)]
        return cls(float(np.min(ends)), float(np.max(ends)))

    def __str__(self) -> str:
        """Return the range in words."""
        return f"{self.least:.3g} to {self.largest:.3g}"


def check_preprocessing(preprocessing: ImagePreprocessing) -> None:
    """Refuse a mean and a standard deviation of other pixels than the scale makes.

    Raises:
        BadInputError: no pixel is as large as the mean, or pixels stay as large as raw ones.
    """
    scale = Scale.of(preprocessing)
    said = f"mean {list(preprocessing.mean)} and std {list(preprocessing.std)}"
    if scale.largest < 0:
        raise BadInputError(
            f"the preprocessing has {said} for pixels of 0 to {BRIGHTEST * preprocessing.scale:g}, "
            f"so the brightest becomes {scale.largest:.3g}: give mean and std of that scale, or "
            "scale=1 for pixels of 0 to 255"
        )
    if max(abs(scale.least), abs(scale.largest)) > LARGEST:
        raise BadInputError(
            f"the preprocessing has {said} for pixels of 0 to {BRIGHTEST * preprocessing.scale:g}, "
            f"which makes them {scale}: give mean and std of that scale, or scale=1/255 for "
            "pixels of 0 to 1"
        )


def check_pictures(where: str, pictures: Array, preprocessing: ImagePreprocessing) -> None:
    """Refuse float pictures that cannot have gone through their preprocessing.

    Args:
        where: whose they are, for errors.
        pictures: float [N, C, H, W].
        preprocessing: what ``edgedl run`` does to a picture.

    Raises:
        BadInputError: they lie on another scale.
    """
    scale = Scale.of(preprocessing)
    least, largest = float(pictures.min()), float(pictures.max())
    width = scale.largest - scale.least
    outside = least < scale.least - width or largest > scale.largest + width
    raw = width > RAW and 0 < largest - least <= 1.5
    plain = scale.least < -0.5 and scale.largest > 1.5 and 0 <= least < largest <= 1
    if outside or raw or plain:
        raise BadInputError(
            f"pictures of {where} are {least:.3g} to {largest:.3g}, while the preprocessing makes "
            f"{scale}: give them as uint8 [N, H, W, C], or as the preprocessing makes them"
        )
