"""Ranks by latency: only layers that are faster as two are split, as far as a speed-up needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import fx

from edgedl.compress.factorize.ranks import Candidate, Ranks, energy_levels, ranks_at_energy
from edgedl.compress.factorize.split_layers import split_layers
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.latency.file_timer import FileTimer, first_fast_enough
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate


@dataclass(frozen=True)
class FastRanks:
    """Ranks that are fast enough, and what was measured.

    Attributes:
        ranks: of the layers that are split.
        latency: over that of the whole network, measured on the whole file.
        prices: path of a weight -> latency with that layer alone split at half of the ranks that
            save arithmetic, over that of the whole network.
        cached: how many of those were measured before.
        fastest: latency at the smallest ranks.
    """

    ranks: Ranks
    latency: Estimate
    prices: Mapping[str, Estimate]
    cached: int
    fastest: Estimate


def ranks_for_speedup(
    graph: fx.GraphModule,
    candidates: Sequence[Candidate],
    timer: FileTimer,
    speedup: float,
    multiple: int,
) -> FastRanks:
    """Return the ranks of the highest energy, the same for every layer, that are fast enough.

    Fast enough is the whole file, by the upper end of the measured interval. Layers that are not
    shown to be faster when they alone are split stay whole.

    Args:
        graph: of ``export_graph``; stays as it is.
        candidates: its layers that can be split.
        timer: compares with the graph.
        speedup: latency now over latency afterwards.
        multiple: of the ranks.

    Raises:
        BadInputError: no layer is faster as two, or the smallest ranks are not fast enough.
    """
    halves = {
        c.path: max(1, c.largest // (2 * multiple)) * multiple
        for c in candidates
        if c.largest >= multiple
    }
    alone = {path: _split(graph, {path: rank}) for path, rank in halves.items()}
    prices = timer.prices(alone)
    paying = [c for c in candidates if c.path in alone and prices.ratios[c.path].hi < 1]
    if not paying:
        raise BadInputError(
            f"none of {len(alone)} layers that can be split at ranks in multiples of {multiple} "
            "is certainly faster as two: remove the stage, or lower multiple"
        )
    levels = reversed(energy_levels(paying))
    path = [{}, *(ranks for ranks, _ in groupby(_at(paying, e, multiple) for e in levels))]

    def measured(step: int) -> Estimate:
        return timer.ratios({"split": _split(graph, path[step])})["split"]

    step, latency, fastest = first_fast_enough(len(path) - 1, measured, speedup)
    return FastRanks(path[step], latency, prices.ratios, prices.cached, fastest)


def _at(candidates: Sequence[Candidate], energy: float, multiple: int) -> dict[str, int]:
    return dict(ranks_at_energy(candidates, energy, multiple))


def _split(graph: fx.GraphModule, ranks: Ranks) -> fx.GraphModule:
    changed = copy_graph(graph)
    split_layers(changed, ranks)
    return changed
