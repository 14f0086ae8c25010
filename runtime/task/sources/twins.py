"""Pictures that look alike: copies of another size or compression, frames of one scene."""

import hashlib
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from edgedl.runtime.preprocess.image import ImagePreprocessing

# A picture of 9 x 8 grey values is compared with its neighbours to the right: 64 bits.
SIDE = 8
# Steps of grey that count as brighter; flat places are noise.
STEP = 4
# Most bits by which two pictures that look alike differ.
DISTANCE = 3
BANDS = DISTANCE + 1
# A band that more pictures share says little: the newest of them are compared.
MOST = 1000


def find_twins(paths: Sequence[Path]) -> list[int]:
    """Return the number of a group for each picture; those that look alike have the same.

    Two pictures look alike if at most 3 of 64 comparisons of neighbours differ; such pairs agree
    in one of four bands of 16 bits, so only those are compared. A picture without edges has
    only copies of its file for twins.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010,
    chapter 3 (hashes and their distance); the difference hash is N. Krawetz's, 2013.

    Raises:
        BackendUnavailableError: pillow is not installed.
        BadInputError: a file is no picture.
    """
    small = ImagePreprocessing(SIDE, SIDE + 1, "L")
    group = list(range(len(paths)))
    seen: dict[Hashable, list[int]] = {}
    hashes: list[int] = []
    for index, path in enumerate(paths):
        bits = np.diff(small.read(path)[0, :, :, 0].astype(np.int16), axis=1) > STEP
        value = int.from_bytes(np.packbits(bits).tobytes(), "big")
        hashes.append(value)
        plain = bits.sum() < SIDE
        keys: list[Hashable] = (
            [hashlib.sha256(path.read_bytes()).digest()]
            if plain
            else [(band, value >> (16 * band) & 0xFFFF) for band in range(BANDS)]
        )
        for key in keys:
            others = seen.setdefault(key, [])
            for other in others[-MOST:]:
                if plain or (hashes[other] ^ value).bit_count() <= DISTANCE:
                    _join(group, index, other)
            others.append(index)
    return [_first(group, index) for index in range(len(paths))]


def _first(group: list[int], index: int) -> int:
    while group[index] != index:
        group[index] = group[group[index]]
        index = group[index]
    return index


def _join(group: list[int], a: int, b: int) -> None:
    first, second = sorted((_first(group, a), _first(group, b)))
    group[second] = first
