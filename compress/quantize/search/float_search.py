"""Search for the layers worth keeping in float, and check the find on the real runtime."""

from dataclasses import dataclass

from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.quantize.refinement import quantized_by
from edgedl.compress.quantize.search.choose_float import Choice, find_candidates, rank_choices
from edgedl.compress.quantize.search.damage import Damage
from edgedl.compress.quantize.search.damage_budget import DamageBudget
from edgedl.compress.quantize.search.float_layers import keep_float, measure_damage, restore_weights
from edgedl.compress.quantize.search.layer_cost import ALL_INT8, WHOLLY_FLOAT, PrecisionTimer
from edgedl.compress.quantize.search.noise_terms import measure_noise_terms
from edgedl.compress.state import ModelState
from edgedl.runtime.measure.estimate import Estimate

# Sets that are simulated before one is taken, and timed before the network stays as it is.
SIMULATED = 5
TIMED = 3


@dataclass(frozen=True)
class Constraints:
    """What a set of float layers must keep to.

    Attributes:
        budget: of the damage.
        max_slowdown: largest latency relative to the all-int8 file.
        max_layers: most layers.
        candidates: layers that are exported and timed one by one.
        samples: calibration samples that the damage is measured on.
        batch_size: samples per forward pass.
    """

    budget: DamageBudget
    max_slowdown: float
    max_layers: int
    candidates: int
    samples: int
    batch_size: int


@dataclass(frozen=True)
class Finding:
    """The network to go on with, and what was measured on the way.

    Attributes:
        network: with the chosen layers in float.
        kept: their nodes; empty if all stays int8.
        reason: why these, or why none.
        int8: damage of the all-int8 network.
        damage: of this one.
        predicted_sqnr_db: what adding up the parts said it would be.
        slowdown: latency over the all-int8 file's; None if nothing was timed.
        of_float32: latency over the float32 file's.
        restored: whether the float layers have the float network's weights, not corrected ones.
    """

    network: QuantizedNetwork
    kept: frozenset[str]
    reason: str
    int8: Damage
    damage: Damage
    predicted_sqnr_db: float | None = None
    slowdown: Estimate | None = None
    of_float32: Estimate | None = None
    restored: bool = False


@dataclass(frozen=True)
class _Simulated:
    """A choice as it really computes."""

    choice: Choice
    network: QuantizedNetwork
    damage: Damage
    restored: bool


class FloatSearch:
    """One search on one model state."""

    def __init__(self, state: ModelState, constraints: Constraints, timer: PrecisionTimer) -> None:
        """Measure every rounding of the network.

        Raises:
            BadInputError: the state is not quantized, or there are no calibration samples.
        """
        self._state, self._constraints, self._timer = state, constraints, timer
        self._network = quantized_by(state, "mix_precision", ("int8",))
        self._parts = measure_noise_terms(
            state.graph,
            self._network,
            state.subject.task,
            constraints.samples,
            constraints.batch_size,
        )

    def run(self) -> Finding:
        """Choose by the sums of parts and costs, then simulate and time what was chosen.

        Raises:
            ExportError: the int8 file of the runtime cannot be made.
        """
        whole, budget = self._parts.int8, self._constraints.budget
        if whole.noise == 0:
            return self._nothing("quantization has no effect on the outputs")
        if not budget.is_open and not budget.excess(whole, whole):
            return self._nothing("the all-int8 network is within the budget")
        found = self._simulate(self._rank())
        better = [s for s in found if budget.excess(s.damage, whole) < budget.excess(whole, whole)]
        reason = "no set of float layers within the latency limit is more accurate"
        for simulated in better[:TIMED]:
            finding = self._time(simulated)
            if finding.kept:
                return finding
            reason = finding.reason
        return self._nothing(reason)

    def _rank(self) -> list[Choice]:
        constraints, whole = self._constraints, self._parts.int8
        budget = constraints.budget
        parts = budget.parts(self._parts)
        candidates = find_candidates(parts, constraints.candidates, constraints.max_layers)
        timings = self._timer.time(
            {"int8": ALL_INT8, **{f"float {n}": frozenset({n}) for n in candidates}}
        )
        costs = {n: _cost(timings.ratio("int8", f"float {n}")) for n in candidates}
        max_cost = constraints.max_slowdown - 1
        return rank_choices(parts, costs, budget.limits(whole), max_cost, constraints.max_layers)

    def _simulate(self, choices: list[Choice]) -> list[_Simulated]:
        """Return the best choices as they compute, best first; one within the budget ends it."""
        whole, budget = self._parts.int8, self._constraints.budget
        found = []
        for choice in choices[:SIMULATED]:
            found.append(self._damage_of(choice))
            if not budget.excess(found[-1].damage, whole):
                return found[-1:]
        return sorted(found, key=lambda s: budget.excess(s.damage, whole))

    def _damage_of(self, choice: Choice) -> _Simulated:
        """Take the better of the float network's weights and those that a stage corrected."""
        mixed = keep_float(self._network, choice.kept)
        best = _Simulated(choice, mixed, self._measure(mixed), False)
        if choice.kept and self._network.graph is not self._state.graph:
            restored = restore_weights(self._state.graph, mixed, choice.kept)
            damage = self._measure(restored)
            if damage.noise < best.damage.noise:
                best = _Simulated(choice, restored, damage, True)
        return best

    def _measure(self, network: QuantizedNetwork) -> Damage:
        samples, batch_size = self._constraints.samples, self._constraints.batch_size
        task = self._state.subject.task
        return measure_damage(self._state.graph, network, task, samples, batch_size)

    def _time(self, simulated: _Simulated) -> Finding:
        """Return what to do with a choice, after its file was timed."""
        kept, limit = simulated.choice.kept, self._constraints.max_slowdown
        timings = self._timer.time({"int8": ALL_INT8, "float32": WHOLLY_FLOAT, "mixed": kept})
        slowdown = timings.ratio("int8", "mixed")
        of_float32 = timings.ratio("float32", "mixed")
        if of_float32.value >= 1:
            return self._nothing(
                f"the mixed file takes {_interval(of_float32)} of the float32 file's time"
            )
        if slowdown.value > limit:
            return self._nothing(
                f"the mixed file takes {_interval(slowdown)} of the all-int8 file's time, "
                f"allowed is {limit:g}"
            )
        budget, whole = self._constraints.budget, self._parts.int8
        met = budget.is_open or not budget.excess(simulated.damage, whole)
        return Finding(
            network=simulated.network,
            kept=kept,
            reason="within the budget"
            if met
            else "the budget is missed: nothing within the latency limit is closer",
            int8=whole,
            damage=simulated.damage,
            predicted_sqnr_db=self._parts.predicted_sqnr_db(kept),
            slowdown=slowdown,
            of_float32=of_float32,
            restored=simulated.restored,
        )

    def _nothing(self, reason: str) -> Finding:
        whole, budget = self._parts.int8, self._constraints.budget
        if not budget.is_open and budget.excess(whole, whole):
            reason += "; the budget is missed"
        return Finding(self._network, frozenset(), reason, self._parts.int8, self._parts.int8)


def _cost(ratio: Estimate) -> float:
    """Return the share of latency that a float layer adds; a gain counts only if it is certain."""
    return ratio.value - 1 if ratio.hi < 1 else max(0.0, ratio.value - 1)


def _interval(ratio: Estimate) -> str:
    return f"{ratio.value:.2f} [{ratio.lo:.2f}, {ratio.hi:.2f}]"
