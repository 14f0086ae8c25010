"""Second moments of what layers read, summed over calibration batches; no activation is kept."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from edgedl.compress.graph.operators.linear import Linear
from edgedl.compress.graph.values import shape_of
from edgedl.runtime.errors import BadInputError

# Of the moments that are summed in one pass over the calibration split.
LARGEST_SUM_BYTES = 2**29
ELEMENT_BYTES = 8


def input_products(
    graph: fx.GraphModule,
    layers: Sequence[Sequence[fx.Node]],
    batches: Callable[[], Iterable[tuple[Tensor, ...]]],
) -> Iterator[Tensor]:
    """Yield the mean product of every pair of inputs of a layer, float64 [K, K], layer by layer.

    Args:
        graph: canonical float graph.
        layers: for each the operators, of [..., K] as first argument, that share its weight.
        batches: starts another pass over the calibration inputs. There is one for as many layers
            as fit ``LARGEST_SUM_BYTES``, at least one layer.

    Raises:
        BadInputError: there are no calibration samples, or a layer's inputs are not finite.
    """
    waiting = list(layers)
    while waiting:
        chosen, size = [waiting.pop(0)], 0
        size = _bytes(chosen[0])
        while waiting and size + _bytes(waiting[0]) <= LARGEST_SUM_BYTES:
            size += _bytes(waiting[0])
            chosen.append(waiting.pop(0))
        watcher = _Watcher(graph, chosen)
        with torch.no_grad():
            for inputs in batches():
                watcher.run(*inputs)
        yield from watcher.means()


def _bytes(layer: Sequence[fx.Node]) -> int:
    return int(shape_of(Linear.of(layer[0]).input)[-1]) ** 2 * ELEMENT_BYTES


class _Watcher(fx.Interpreter):
    """Runs a graph and sums what some of its operators read."""

    def __init__(self, graph: fx.GraphModule, layers: Sequence[Sequence[fx.Node]]) -> None:
        super().__init__(graph)
        self._layers = layers
        self._owner = {node: index for index, layer in enumerate(layers) for node in layer}
        self._sums: dict[int, Tensor] = {}
        self._counts = dict.fromkeys(range(len(layers)), 0)

    def run_node(self, n: fx.Node) -> Any:
        index = self._owner.get(n)
        if index is not None:
            x = self.env[Linear.of(n).input]
            rows = x.reshape(-1, x.shape[-1]).double()
            product = rows.t() @ rows
            self._sums[index] = self._sums[index] + product if index in self._sums else product
            self._counts[index] += len(rows)
        return super().run_node(n)

    def means(self) -> Iterator[Tensor]:
        for index, layer in enumerate(self._layers):
            if not self._counts[index]:
                raise BadInputError("the calibration split has no samples for quantize_weights")
            mean = self._sums.pop(index) / self._counts[index]
            if not mean.isfinite().all():
                raise BadInputError(
                    f"the inputs of '{layer[0].name}' are not finite on calibration samples"
                )
            yield mean
