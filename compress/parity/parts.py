"""The parts of an output: what differs in origin or in size, and must be looked at by itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from edgedl.compress.graph.edit import output_nodes
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.operators import moving
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import row_of
from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.certificates import PartParity

# Positions of an axis whose values are so much smaller than the largest are a part of their own: in
# 8 bits they have four steps.
SMALLER = 64.0
# A part has at least this share of the positions of its axis.
LEAST_SHARE = 0.02
# The quietest quarter of the samples is a part where it is so much smaller than the loudest.
QUIETER = 4.0
# A value varies where its spread over the samples is so much of its part's size.
VARIES = 0.05

_PICKS = (aten.slice.Tensor, aten.select.int)
_JOINS = (aten.cat.default, aten.stack.default)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """Some values of an output.

    Attributes:
        name: for people.
        places: of a sample, by flat position: bool [P]; None for all.
        samples: which of them: bool [N]; None for all.
    """

    name: str
    places: Mask | None = None
    samples: Mask | None = None

    def of(self, values: Array) -> Array:
        """Return the part of an output [N, ...] as [n, p]."""
        flat = values.reshape(len(values), -1)
        if self.samples is not None:
            flat = flat[self.samples]
        return flat if self.places is None else flat[:, self.places]


class OutputOrigins:
    """Which values of a network's outputs come from which operator, through concats and moves."""

    def __init__(self, graph: fx.GraphModule, inputs: tuple[Array, ...]) -> None:
        """Run the graph once, to know every size.

        Args:
            graph: canonical.
            inputs: at least one sample [N, ...] of each input.
        """
        self._values = _Sizes(graph)
        with torch.no_grad():
            self._values.run(*(torch.tensor(x[:2]) for x in inputs))
        self._sources: list[fx.Node] = []
        self._known: dict[fx.Node, Tensor | None] = {}
        self._labels = [self._label(node) for node in output_nodes(graph)]

    def parts(self, output: int, reference: Array) -> list[Part]:
        """Return the parts of an output, given what the float network computes: [N, ...].

        Those that a concat joined, or else those of very different size along an axis; and the
        quietest samples. None where all values are alike.
        """
        labels = self._labels[output]
        places = int(np.prod(reference.shape[1:]))
        parts: list[Part] = []
        if labels is not None and labels[0].numel() == places:
            flat = labels[0].flatten().numpy()
            ids = np.unique(flat)
            if len(ids) > 1:
                parts = [Part(self._name(int(i), flat == i), flat == i) for i in ids]
        return [*(parts or by_size(reference)), *_quiet_samples(reference)]

    def _name(self, label: int, mask: Mask) -> str:
        source = self._sources[label]
        where = layer_name(source)
        origin = f"'{where}' ({source.name})" if where else f"'{source.name}'"
        return f"what {origin} gives ({int(mask.sum())} values)"

    def _label(self, node: fx.Node) -> Tensor | None:
        """Return the number of the operator that each value comes from, in the node's shape."""
        if node not in self._known:
            self._known[node] = self._make_label(node)
        return self._known[node]

    def _make_label(self, node: fx.Node) -> Tensor | None:
        sizes = self._values.sizes.get(node)
        if sizes is None:
            return None
        moved = [n for n in node.all_input_nodes if n in self._values.sizes and n.op != "get_attr"]
        if node.target in _JOINS and moved:
            return self._again(node, moved)
        if len(moved) == 1:
            is_move = row_of(node) in moving.ROWS or node.target in _PICKS
            pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
            if is_move:
                return self._again(node, moved)
            if pointwise and self._values.sizes[moved[0]] == sizes:
                return self._label(moved[0])
        self._sources.append(node)
        return torch.full(sizes, float(len(self._sources) - 1))

    def _again(self, node: fx.Node, moved: list[fx.Node]) -> Tensor:
        """Do with the numbers what a node does with the values."""
        known: dict[fx.Node, Any] = {n: self._label(n) for n in moved}

        def value(n: fx.Node) -> Any:
            if n in known:
                return known[n]
            return self._values.scalars[n] if n in self._values.scalars else self._constant(n)

        args, kwargs = fx.map_arg((node.args, node.kwargs), value)
        found: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
        return found

    def _constant(self, node: fx.Node) -> Tensor:
        self._sources.append(node)
        return torch.full(self._values.sizes[node], float(len(self._sources) - 1))


class _Sizes(fx.Interpreter):
    """Runs a graph and keeps the shape of every tensor, and every number."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.sizes: dict[fx.Node, tuple[int, ...]] = {}
        self.scalars: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.sizes[n] = tuple(value.shape)
        else:
            self.scalars[n] = value
        return value


def by_size(reference: Array) -> list[Part]:
    """Return the positions of an axis in bands of size, if there is more than one band."""
    squares = np.square(reference, dtype=np.float64)
    best: list[Part] = []
    widest = SMALLER
    for axis in range(1, reference.ndim):
        others = tuple(i for i in range(reference.ndim) if i != axis)
        size = np.sqrt(squares.mean(axis=others))
        alive = size > 0
        if alive.sum() < 2:
            continue
        ratio = size.max() / size[alive].min()
        if ratio < widest:
            continue
        bands = np.full(len(size), -1)
        bands[alive] = np.floor(np.log(size.max() / size[alive]) / np.log(SMALLER)).astype(int)
        parts = [_band(reference, axis, bands == b, size) for b in np.unique(bands[alive])]
        kept = [
            p
            for p, b in zip(parts, np.unique(bands[alive]), strict=True)
            if (bands == b).mean() >= LEAST_SHARE
        ]
        if len(kept) > 1:
            best, widest = kept, ratio
    return best


def _band(reference: Array, axis: int, chosen: Mask, size: npt.NDArray[np.float64]) -> Part:
    shape = [1] * (reference.ndim - 1)
    shape[axis - 1] = -1
    mask = np.broadcast_to(chosen.reshape(shape), reference.shape[1:]).reshape(-1)
    (places,) = np.nonzero(chosen)
    run = places[-1] - places[0] + 1 == len(places)
    which = f"{places[0]} to {places[-1]}" if run and len(places) > 1 else str(places[0])
    if not run:
        which = f"{places[0]} and {len(places) - 1} others"
    return Part(f"positions {which} of axis {axis} (about {size[chosen].mean():.3g})", mask)


def _quiet_samples(reference: Array) -> list[Part]:
    """Return the quietest quarter of the samples if it is far smaller than the loudest."""
    if len(reference) < 8:
        return []
    flat = reference.reshape(len(reference), -1)
    size = np.sqrt(np.square(flat, dtype=np.float64).mean(axis=1))
    low, high = np.quantile(size, [0.25, 0.75])
    if low <= 0 or high < QUIETER * low:
        return []
    return [Part("the quietest quarter of the samples", samples=size <= low)]


def measure_part(part: Part, found: Array, reference: Array) -> PartParity:
    """Hold a part of a file's output [N, ...] against the float network's."""
    a, b = part.of(found).astype(np.float64), part.of(reference).astype(np.float64)
    energy, noise = float(np.square(b).sum()), float(np.square(a - b).sum())
    return PartParity(
        part.name,
        a.shape[1],
        float(10 * np.log10(energy / noise)) if energy and noise else None,
        _constant_share(a, b),
        _saturated_share(a, b),
    )


def _constant_share(found: Array, reference: Array) -> float:
    """Return the share of values that vary in the reference and not in what was found."""
    if len(reference) < 2:
        return 0.0
    size = np.sqrt(np.square(reference).mean())
    varies = reference.std(axis=0) > VARIES * size
    if not varies.any():
        return 0.0
    return float((found[:, varies] == found[:1, varies]).all(axis=0).mean())


def _saturated_share(found: Array, reference: Array) -> float:
    """Return the share of values at an end of what was found, beyond which the reference goes."""
    lo, hi = found.min(initial=np.inf), found.max(initial=-np.inf)
    slack = 0.01 * (hi - lo)
    beyond = ((found == hi) & (reference > hi + slack)) | ((found == lo) & (reference < lo - slack))
    return float(beyond.mean()) if found.size else 0.0
