"""The stage that splits layers in two, by low rank."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

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
from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.latency.file_timer import FileTimer, TimedPrecision
from edgedl.compress.latency.timing import Runtime
from edgedl.compress.stage import StageSettings
from edgedl.compress.state import (
    ModelState,
    NothingRemovedError,
    refuse_after,
    refuse_together,
    trainable_graph,
)
from edgedl.compress.targets.target import load_target
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.precision import precision_named

ENERGY = 0.9


class Factorize(StageSettings, frozen=True, tag="factorize"):
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

    def apply(self, state: ModelState) -> ModelState:
        """Return the state of the split network; its history says the rank of each layer.

        Raises:
            BadInputError: the network is quantized or sparse already, a name in ``keep`` matches no
                layer, no layer is worth splitting, or the ratio or speed-up cannot be reached.
        """
        subject = state.subject
        refuse_after(state, "factorize", "sparsify", "the pattern of the zeros")
        graph = trainable_graph(state, "factorize")
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
        network = TracedNetwork(graph)
        settings = {
            **msgspec.structs.asdict(self),
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
        return replace(
            state,
            subject=replace(subject, module=network),
            graph=trace(network, subject.example_inputs(), subject.free_axes),
            parent=state.parent or subject.module,
            history=(*state.history, HistoryEntry("factorize", settings)),
        )

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
