"""The rewrites of a converted TFLite file, in order. Each gives the same numbers as before."""

from collections.abc import Callable

from edgedl.compress.export.tflite.clips import clip_in_xnnpack
from edgedl.compress.export.tflite.float_kernels import compute_in_float
from edgedl.compress.export.tflite.padding import absorb_padding
from edgedl.compress.export.tflite.pixel_shuffle import use_depth_to_space

# Returns a model that it has nothing to do in as it is.
FilePass = Callable[[bytes], bytes]

ORDER: tuple[FilePass, ...] = (
    absorb_padding,
    clip_in_xnnpack,
    compute_in_float,
    # Last: it moves the channels of the convolution, which others would look for.
    use_depth_to_space,
)
REORDERS_WEIGHTS: frozenset[FilePass] = frozenset({use_depth_to_space})


def rewrite_file(model: bytes, weights_as_they_are: bool = False) -> bytes:
    """Return a converted model, rewritten; its weights keep their order where that is asked."""
    for rewrite in ORDER:
        if not (weights_as_they_are and rewrite in REORDERS_WEIGHTS):
            model = rewrite(model)
    return model
