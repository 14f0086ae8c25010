"""The encodings table as parameters: one for everything that shares a grid."""

from typing import Literal

import torch
from torch import Tensor, fx, nn

from edgedl.compress.encodings.affine import SMALLEST_SCALE, affine_for, range_of
from edgedl.compress.encodings.encodings import Encodings, Range
from edgedl.compress.encodings.joins import groups_on_one_grid
from edgedl.compress.encodings.placement import fused_activation
from edgedl.compress.graph.operators.operator import Ranges
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.quantize.qat.learned_step import ACTIVATION_QMAX, straight_through
from edgedl.compress.targets.target import REFERENCE

Learn = Literal["nothing", "scales", "scales_and_offsets"]


class LearnedRanges(nn.Module):
    """A table whose ranges can be trained, and that reads back as a table.

    A step is its calibrated value times exp(parameter), so that one rate suits steps of all sizes
    and an untrained parameter gives the calibrated step to the last bit. An offset is a share of
    the grid: at one rate it moves an end about as far as the step does.

    What stays as it is: the network's inputs (their grid is the sensor's), constants, operators
    whose kernels have one grid, and everything on one grid with these. An offset is learned only
    where zero lies inside the grid: a grid that starts at zero lets the runtimes drop a ReLU.

    Attributes:
        grids: name of a tensor -> index of its grid in ``scales`` and ``zero_points``.
        paths: path of a weight -> index of its parameters.
    """

    _scale: Tensor
    _zero_point: Tensor
    _learned: Tensor
    _offset_learned: Tensor

    def __init__(self, graph: fx.Graph, encodings: Encodings, learn: Learn) -> None:
        """Start at a table's ranges."""
        super().__init__()
        self._encodings = encodings
        groups = _shared_grids(graph, encodings)
        self.grids = {n.name: index for index, group in enumerate(groups) for n in group}
        self.paths = {path: index for index, path in enumerate(encodings.weights)}
        first = [affine_for(encodings.activations[group[0].name], REFERENCE) for group in groups]
        scales, zeros = [a.scale for a in first], [float(a.zero_point) for a in first]
        learned = [learn != "nothing" and _is_free(group) for group in groups]
        self.register_buffer("_scale", torch.tensor(scales, dtype=torch.float32))
        self.register_buffer("_zero_point", torch.tensor(zeros, dtype=torch.float32))
        self.register_buffer("_learned", torch.tensor(learned))
        inside = (self._zero_point > 0) & (self._zero_point < ACTIVATION_QMAX)
        with_offsets = torch.tensor(learn == "scales_and_offsets")
        self.register_buffer("_offset_learned", self._learned & inside & with_offsets)
        self.log_ratios = nn.Parameter(torch.zeros(len(groups)), learn != "nothing")
        self.offsets = nn.Parameter(torch.zeros(len(groups)), learn == "scales_and_offsets")
        for index, amax in enumerate(encodings.weights.values()):
            self.register_buffer(f"_amax_{index}", amax.float(), persistent=False)
        self.weight_log_ratios = nn.ParameterList(
            nn.Parameter(torch.zeros_like(amax.float()), learn != "nothing")
            for amax in encodings.weights.values()
        )

    def scales(self) -> Tensor:
        """Return the step of every grid, float32 [G]."""
        scales: Tensor = self._scale * torch.exp(self.log_ratios * self._learned)
        return scales.clamp(min=SMALLEST_SCALE)

    def zero_points(self) -> Tensor:
        """Return the zero point of every grid on ONNX Runtime's integers: float32 [G], whole."""
        moved = self.offsets * self._offset_learned * ACTIVATION_QMAX
        exact = (self._zero_point + moved).clamp(0, ACTIVATION_QMAX)
        return straight_through(exact, exact.round())

    def amax(self, path: str) -> Tensor:
        """Return the largest magnitude of each channel of a weight, float32 [C_out]."""
        index = self.paths[path]
        return self.get_buffer(f"_amax_{index}") * torch.exp(self.weight_log_ratios[index])

    @torch.no_grad()
    def activations(self) -> dict[str, Range]:
        """Return the ranges whose grids are exactly the learned ones."""
        scales, zeros = self.scales().tolist(), self.zero_points().tolist()
        found = dict(self._encodings.activations)
        for name, index in self.grids.items():
            if self._learned[index] and name in found:
                found[name] = range_of(scales[index], int(zeros[index]))
        return found


def _shared_grids(graph: fx.Graph, encodings: Encodings) -> list[list[fx.Node]]:
    """Return the nodes of the table by grid: those joined, and what an activation is folded into.

    See ``calibrate.share_encodings``, which gives all of a grid one range.
    """
    groups = [
        [node for node in group if node.name in encodings.activations]
        for group in groups_on_one_grid(graph, encodings.float_nodes)
    ]
    group_of = {node: group for group in groups for node in group}
    for node in list(group_of):
        activation = fused_activation(node)
        if activation is not None and activation in group_of:
            group_of[node].remove(node)
            group_of[activation].append(node)
    return [group for group in groups if group]


def _is_free(group: list[fx.Node]) -> bool:
    """Say whether a grid may change."""
    fixed = any(n.op == "placeholder" or row_of(n).ranges is Ranges.FIXED for n in group)
    return not fixed and any(node.op == "call_function" for node in group)
