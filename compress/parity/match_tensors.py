"""Which tensor of a file is which of the torch graph: by grid, size, and layout.

Names do not tell: ONNX files have those of the exporter, TFLite files those of modules, and only
some. Grids do, as ranges are real numbers found by calibration. Where several tensors share one
(an operator that only moves values keeps its input's grid), those whose values fit best belong
together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgedl.compress.export.exporter import Centred, InnerTensor
from edgedl.runtime.backend import Array


@dataclass(frozen=True)
class Match:
    """A tensor of a file that is one of the graph.

    Attributes:
        tensor: in the file.
        channels_last: whether the file has axis 1 of the graph's tensor last.
        shape: of one sample in the graph, with its batch of one.
    """

    tensor: InnerTensor
    channels_last: bool
    shape: tuple[int, ...]

    def to_graph(self, integers: Array) -> Centred:
        """Return the file's integers as the graph has them, centred."""
        centred = self.tensor.centre(integers)
        if not self.channels_last:
            return centred.reshape(self.shape)
        last = (self.shape[0], *self.shape[2:], self.shape[1])
        return np.moveaxis(centred.reshape(last), -1, 1)

    def to_file(self, centred: Centred) -> Centred:
        """Return one sample's integers in the file's order, flat: [size]."""
        moved = np.moveaxis(centred, 1, -1) if self.channels_last else centred
        return moved.ravel() + self.tensor.zero_point


def match_tensors(
    graph_tensors: Sequence[InnerTensor],
    expected: dict[str, Centred],
    file_tensors: Sequence[InnerTensor],
    found: dict[str, Array],
) -> dict[str, Match]:
    """Return the file's tensor for every tensor of the graph that it has, by node name.

    Args:
        graph_tensors: of the emitted graph.
        expected: their centred integers for one sample.
        file_tensors: of the file.
        found: their integers for the same sample.
    """
    candidates = []
    for position, wanted in enumerate(graph_tensors):
        values = expected[wanted.name]
        for tensor in file_tensors:
            if not _same_grid(wanted, tensor):
                continue
            for match in _layouts(tensor, found[tensor.name].shape, values.shape):
                error = float(np.abs(match.to_graph(found[tensor.name]) - values).mean())
                candidates.append((error, position, wanted.name, match))
    matches: dict[str, Match] = {}
    taken: set[str] = set()
    # Stable: of equal fits the earlier tensors of graph and file go together.
    for _, _, node, match in sorted(candidates, key=lambda c: c[:2]):
        if node not in matches and match.tensor.name not in taken:
            matches[node] = match
            taken.add(match.tensor.name)
    return {t.name: matches[t.name] for t in graph_tensors if t.name in matches}


def _same_grid(a: InnerTensor, b: InnerTensor) -> bool:
    """Say whether two grids are one, or one shifted by 128 as uint8 is of int8."""
    return np.float32(a.scale) == np.float32(b.scale) and (a.zero_point - b.zero_point) % 128 == 0


def _layouts(tensor: InnerTensor, found: tuple[int, ...], wanted: tuple[int, ...]) -> list[Match]:
    """Return the ways to read a file's tensor as the graph's; axes of size one are free to go."""
    moved = (wanted[0], *wanted[2:], *wanted[1:2])
    same = [_without_ones(found) == _without_ones(shape) for shape in (wanted, moved)]
    return [Match(tensor, way, wanted) for way in (False, True) if same[way]]


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [d for d in shape if d != 1]
