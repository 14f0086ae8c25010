"""What files are made for: each target is a YAML file in ``edgedl.compress.targets``."""

from collections.abc import Collection
from functools import cache

import msgspec

from edgedl.compress.targets.described import MAX_WEIGHT_BITS as MAX_WEIGHT_BITS
from edgedl.compress.targets.described import Target as Target
from edgedl.compress.targets.described import described_target
from edgedl.compress.targets.described import target_names as target_names
from edgedl.compress.targets.integer_kernels import check_rows
from edgedl.runtime.backends.runtimes import RUNTIMES


@cache
def load_target(name: str) -> Target:
    """Return a target by name, or the one that a YAML file of one's own describes (``Variant``).

    Raises:
        BadInputError: there is none of that name, the file does not describe one, or an operator
            that it names is not known.

    >>> load_target("tensorrt").symmetric
    True
    """
    target = described_target(name)
    for names in (target.integer_operators, *msgspec.structs.astuple(target.int16)):
        check_rows(names, f"the target {target.name}")
    return target


def weight_bits(targets: Collection[Target]) -> int:
    """Return how many bits int8 weights may have in one bundle for several targets."""
    return min(target.weight_bits_here for target in targets)


# Whose placement of pairs a network is trained with: every activation is folded into the operator
# before it, and nothing else is.
TRAINED_FOR = load_target("tflite")
# What files are made for when nothing is said, one target for each runtime.
TARGETS = tuple(load_target(name) for name in RUNTIMES)
# Its float32 file is the one that all others are compared with.
REFERENCE = TARGETS[0]
