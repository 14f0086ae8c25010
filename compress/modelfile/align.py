"""Match the layers of two model files, whatever their formats."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from edgedl.compress.modelfile.layer import FileLayer, Grid

_Key = Callable[[FileLayer], tuple[Hashable, ...]]


@dataclass(frozen=True)
class Match:
    """A layer of each file; None where the other file has nothing like it."""

    first: FileLayer | None
    second: FileLayer | None

    def differences(self) -> list[str]:
        """Say in what the two differ; nothing where they compute the same."""
        if self.first is None or self.second is None:
            return [f"only in {'B' if self.first is None else 'A'}"]
        a, b = self.first, self.second
        found = []
        if width(a.inputs) != width(b.inputs):
            found.append(f"computes {a.inputs} / {b.inputs}")
        for what, one, other in (("output", a.output, b.output), ("weight", a.weight, b.weight)):
            if one is not None and other is not None and not same_grid(one, other):
                found.append(f"{what} {one.describe()} / {other.describe()}")
        if a.weight_bytes != b.weight_bytes:
            found.append(f"{a.weight_bytes} / {b.weight_bytes} bytes")
        return found


def align(first: list[FileLayer], second: list[FileLayer]) -> list[Match]:
    """Return the layers of two files in order, those side by side that do the same work.

    First those of the same name and operator find each other, as in two files of one format;
    between them those of the same operator, whose multiply-accumulates or the format-neutral form
    of whose kind agree; then those whose output is of the same size. What one format has as an
    operator of its own, the other may have folded into its neighbour.
    """
    return _align(first, second, (_name, _kind, _work))


def _align(first: list[FileLayer], second: list[FileLayer], keys: Sequence[_Key]) -> list[Match]:
    """Match by the first key; what is left between two matches, by the others."""
    if not keys or not first or not second:
        return [Match(a, None) for a in first] + [Match(None, b) for b in second]
    known = [[keys[0](layer) for layer in layers] for layers in (first, second)]
    matches: list[Match] = []
    blocks = SequenceMatcher(None, known[0], known[1], autojunk=False).get_opcodes()
    for kind, a0, a1, b0, b1 in blocks:
        if kind == "equal":
            pairs = zip(first[a0:a1], second[b0:b1], strict=True)
            matches += [Match(a, b) for a, b in pairs]
        else:
            matches += _align(first[a0:a1], second[b0:b1], keys[1:])
    return matches


def same_grid(a: Grid, b: Grid) -> bool:
    """Say whether two grids are one: uint8 and int8 are the same grid shifted by 128."""
    if len(a.scales) != len(b.scales) or a.block_size != b.block_size:
        return False
    shift_a, shift_b = (128 if g.dtype == "uint8" else 0 for g in (a, b))
    scales_equal = np.array_equal(np.array(a.scales, np.float32), np.array(b.scales, np.float32))
    zeros_equal = [z - shift_a for z in a.zero_points] == [z - shift_b for z in b.zero_points]
    return bool(scales_equal and zeros_equal)


def width(dtype: str) -> str:
    """Return a dtype without its sign: the runtimes hold the same integers in either."""
    return dtype.removeprefix("u")


def _work(layer: FileLayer) -> tuple[Hashable, ...]:
    return math.prod(d for d in layer.shape if d is not None), layer.macs


def _kind(layer: FileLayer) -> tuple[Hashable, ...]:
    """Return the work and the operator: ``Add`` and ``ADD``, ``AveragePool`` and its ``_2D``."""
    plain = layer.operator.lower().replace("_", "").removesuffix("2d")
    return (*_work(layer), plain if layer.macs == 0 else "")


def _name(layer: FileLayer) -> tuple[Hashable, ...]:
    return (*_work(layer), layer.operator, layer.name)
