"""What each channel of a tensor held; memory does not grow with the calibration samples."""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.operators.table import row_of
from edgedl.runtime.errors import BadInputError


class ChannelStatistics:
    """Ends, mean and deviation per channel, added up in float64.

    Attributes:
        lo: smallest value, float32 [C]. hi: largest value, float32 [C].
    """

    def __init__(self, axis: int) -> None:
        """Start empty; ``axis`` is that of the channels."""
        self._axis = axis
        self._count = 0
        self._sum = self._squares = torch.zeros(1, dtype=torch.float64)
        self.lo = torch.full((1,), torch.inf)
        self.hi = torch.full((1,), -torch.inf)

    def add(self, x: Tensor) -> None:
        """Add the values of a float tensor."""
        rows = x.detach().movedim(self._axis, 0).flatten(1)
        wide = rows.double()
        self._count += rows.shape[1]
        self._sum = self._sum + wide.sum(1)
        self._squares = self._squares + wide.square().sum(1)
        self.lo, self.hi = (
            torch.minimum(self.lo, rows.amin(1)),
            torch.maximum(self.hi, rows.amax(1)),
        )

    @property
    def largest(self) -> Tensor:
        """The largest magnitude, float32 [C]."""
        return torch.maximum(-self.lo, self.hi)

    @property
    def mean(self) -> Tensor:
        """The mean, float64 [C]."""
        return self._sum / self._count

    @property
    def deviation(self) -> Tensor:
        """The standard deviation, float64 [C]."""
        return (self._squares / self._count - self.mean.square()).clamp(min=0).sqrt()


def channel_axis(reader: fx.Node) -> int:
    """Return the axis of the channels in what a convolution or linear layer reads or writes."""
    return row_of(reader).channel_axis


def observe_channels(
    graph: fx.GraphModule, batches: Iterable[tuple[Tensor, ...]], axes: dict[fx.Node, int]
) -> dict[fx.Node, ChannelStatistics]:
    """Run samples through a graph and return the statistics of some of its tensors.

    Args:
        graph: canonical float graph.
        batches: inputs, one tuple of float32 tensors per batch.
        axes: the nodes to look at -> the axis of their channels.

    Raises:
        BadInputError: there are no samples, or a tensor is not finite on one of them.
    """
    found = {node: ChannelStatistics(axis) for node, axis in axes.items()}
    tap = _Tap(graph, found, axes.keys())
    ran = False
    with torch.no_grad():
        for batch in batches:
            tap.run(*batch)
            ran = True
    if not ran:
        raise BadInputError("there are no calibration samples")
    for node, statistics in found.items():
        if not torch.isfinite(statistics.mean).all():
            raise BadInputError(f"calibration met values that are not finite in '{node.name}'")
    return found


class _Tap(fx.Interpreter):
    def __init__(
        self,
        graph: fx.GraphModule,
        found: dict[fx.Node, ChannelStatistics],
        watched: Collection[fx.Node],
    ) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self._found, self._watched = found, watched

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._watched:
            self._found[n].add(value)
        return value
