"""The stage that splits layers in two, by low rank."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import fx

from edgedl.compress.estimate import Estimated
from edgedl.compress.factorize.ranks import (
    Candidate,
    Ranks,
    find_candidates,
    ranks_at_energy,
    ranks_for_ratio,
)
from edgedl.compress.factorize.ranks_by_latency import FastRanks, ranks_for_speedup
from edgedl.compress.factorize.split_layers import split_layers
from edgedl.compress.graph.cuts.mac_counter import MacCounter
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.latency.file_timer import FileTimer, TimedPrecision, milder_speedup
from edgedl.compress.latency.timing import Runtime, this_machine
from edgedl.compress.stage import MILDER, Found, Stage, recorded_lines, refuse_together
from edgedl.compress.state import ZEROS, ModelState, NothingRemovedError, Phase, Trait
from edgedl.compress.targets.target import load_target
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.precision import precision_named

ENERGY = 0.9


class Factorize(Stage, frozen=True, tag="factorize"):
    """Low rank: a linear layer or convolution becomes two, where both together multiply less.

    The first keeps the kernel and has fewer outputs, the second is a linear layer or a 1x1
    convolution. Fewer multiplications are more operators: whether it is faster is measured. The
    network should be fine-tuned afterwards. Grouped and depthwise convolutions stay.

    Attributes:
        energy: share of the sum of squared singular values that every split layer keeps; null is
            0.9, unless ``ratio`` or ``speedup`` is given.
        ratio: share of the network's multiply-accumulates to remove; every layer then keeps the
            same energy, the most that reaches it.
        speedup: latency now over latency afterwards, measured on the runtime: layers that are
            faster as two are split, at the same energy, the most that reaches it.
        runtime: that the speed-up is measured on.
        precision: of the file that is timed.
        keep: layers that stay whole: module paths, with all that is inside, or wildcards.
        multiple: a rank is the next multiple of this, as far as it saves arithmetic; 8 float32
            fill a register of AVX2, two of NEON.
    """

    works_on: ClassVar[Phase] = Phase.TRAINED
    yields: ClassVar[Phase] = Phase.TRAINED
    undoes: ClassVar[frozenset[Trait]] = frozenset({ZEROS})
    renames_layers: ClassVar[bool] = True

    energy: Annotated[float, Meta(gt=0, le=1)] | None = None
    ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    speedup: Annotated[float, Meta(gt=1)] | None = None
    runtime: Runtime = RUNTIMES[0]
    precision: TimedPrecision = "float32"
    keep: tuple[str, ...] = ()
    multiple: Annotated[int, Meta(ge=1)] = 8

    def __post_init__(self) -> None:
        """Refuse two wishes at once.

        Raises:
            BadInputError: there are two of energy, ratio and speedup.
        """
        super().__post_init__()
        ways = {"energy": self.energy, "ratio": self.ratio, "speedup": self.speedup}
        refuse_together("factorize", ways)

    def milder(self) -> "Factorize":
        """Take 0.7 of the arithmetic, of the lost energy, or of the time that is to be saved."""
        if self.speedup is not None:
            return msgspec.structs.replace(self, speedup=milder_speedup(self.speedup))
        if self.ratio is not None:
            return msgspec.structs.replace(self, ratio=round(self.ratio * MILDER, 4))
        lost = 1 - (self.energy or ENERGY)
        return msgspec.structs.replace(self, energy=round(1 - lost * MILDER, 6))

    def machine(self, device: torch.device) -> str | None:
        """Return what ranks by latency depend on."""
        return None if self.speedup is None else this_machine()

    def estimate(self, state: ModelState) -> Estimated:
        """Estimate the time; of a search by latency it is not known."""
        return Estimated(None, state) if self.speedup is not None else super().estimate(state)

    @classmethod
    def rebuild(cls, graph: fx.GraphModule, entry: HistoryEntry) -> fx.GraphModule:
        """Return the graph with layers of the recorded ranks."""
        lines = (line.partition("=") for line in recorded_lines(entry, "ranks"))
        split_layers(graph, {path: int(rank) for path, _, rank in lines})
        return graph

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Return the state of the split network; its history says the rank of each layer.

        Raises:
            BadInputError: a name in ``keep`` matches no layer, no layer is worth splitting, or the
                ratio or speed-up cannot be reached.
        """
        graph = state.trainable_graph()
        before = MacCounter(TensorAxes(graph)).count({})
        candidates = find_candidates(graph, self.keep)
        measured: dict[str, Setting] = {}
        if self.speedup is None:
            ranks = self._ranks(candidates, before)
        else:
            timer = FileTimer(
                state, graph, load_target(self.runtime), precision_named(self.precision)
            )
            fast = ranks_for_speedup(graph, candidates, timer, self.speedup, self.multiple)
            ranks, measured = fast.ranks, _measured(fast)
        split_layers(graph, ranks)
        return state.with_network(TracedNetwork(graph)), {
            "ranks": tuple(f"{path}={rank}" for path, rank in ranks.items()),
            "kept_energy": tuple(
                f"{c.path}={c.factors.energy(ranks[c.path]):.4g}"
                for c in candidates
                if c.path in ranks
            ),
            "macs_before": before,
            "macs_after": MacCounter(TensorAxes(graph)).count({}),
            **measured,
        }

    def _ranks(self, candidates: Sequence[Candidate], macs: int) -> Ranks:
        if self.ratio is not None:
            return ranks_for_ratio(candidates, self.ratio, macs, self.multiple)
        energy = ENERGY if self.energy is None else self.energy
        ranks = ranks_at_energy(candidates, energy, self.multiple)
        if not ranks:
            raise NothingRemovedError(
                f"no layer can be split in two that multiply less at an energy of {energy} and "
                f"ranks in multiples of {self.multiple}: lower either"
            )
        return ranks


def _measured(fast: FastRanks) -> dict[str, Setting]:
    latency = fast.latency
    return {
        "latency_ratio": latency.value,
        "latency_ratio_ci95": (f"{latency.lo:.4f}", f"{latency.hi:.4f}"),
        "latency_ratio_of_each": tuple(f"{p}={e.value:.4f}" for p, e in fast.prices.items()),
        "prices_cached": fast.cached,
        "latency_ratio_narrowest": fast.fastest.value,
    }
