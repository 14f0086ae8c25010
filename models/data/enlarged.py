"""Pictures of a small data set, enlarged for a network that wants larger ones."""

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.install import install_line


def enlarge(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resize pictures uint8 [N, H, W, 3] to uint8 [N, size, size, 3], bilinear.

    Raises:
        BackendUnavailableError: pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise BackendUnavailableError.of(
            error, f"pillow is missing: {install_line('data')}"
        ) from error
    target = (size, size)
    return np.stack(
        [np.asarray(Image.fromarray(x).resize(target, Image.Resampling.BILINEAR)) for x in images]
    )
