"""The stage that keeps those layers in float that pay for it: decided by measurement."""

import math
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from msgspec import Meta

from edgedl.compress.encodings.encodings import QuantizedPrecision
from edgedl.compress.encodings.quantized_layers import quantized_layers
from edgedl.compress.estimate import Estimated
from edgedl.compress.latency.timing import Runtime, this_machine
from edgedl.compress.quantize.refinement import Refinement
from edgedl.compress.quantize.search.damage_budget import DamageBudget
from edgedl.compress.quantize.search.float_search import Constraints, Finding, FloatSearch
from edgedl.compress.quantize.search.layer_cost import PrecisionTimer
from edgedl.compress.stage import Found
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import load_target
from edgedl.runtime.backends.runtimes import RUNTIMES


class MixPrecision(Refinement, frozen=True, tag="mix_precision"):
    """Keep the layers in float that buy most accuracy for the latency they cost.

    With a limit on noise or loss: the cheapest layers that meet it. Without one: those that leave
    least noise. The file made is timed against the all-int8 and the float32 file; what is not
    faster than float32 is not worth it, and every layer stays int8.

    Attributes:
        min_sqnr_db: signal to quantization noise ratio that the outputs should reach.
        max_loss: task loss against the float network that may remain (see ``Damage.loss``).
        max_slowdown: largest latency relative to the all-int8 file.
        max_layers: most layers kept.
        candidates: layers that are exported and timed one by one, seconds each.
        runtime: whose latency counts.
        samples: calibration samples looked at.
        batch_size: samples per forward pass.
    """

    refines: ClassVar[tuple[QuantizedPrecision, ...]] = ("int8",)

    min_sqnr_db: float | None = None
    max_loss: Annotated[float, Meta(ge=0)] | None = None
    max_slowdown: Annotated[float, Meta(ge=1)] = 1.1
    max_layers: Annotated[int, Meta(ge=1, le=10)] = 3
    candidates: Annotated[int, Meta(ge=1, le=10)] = 6
    runtime: Runtime = RUNTIMES[0]
    samples: Annotated[int, Meta(ge=1)] = 128
    batch_size: Annotated[int, Meta(ge=1)] = 32

    def machine(self, device: torch.device) -> str:
        """Return what its choice depends on."""
        return this_machine()

    def estimate(self, state: ModelState) -> Estimated:
        """Say that its time is not known before it runs."""
        return Estimated(None, state)

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        """Add the chosen layers to the float ones; the history says what was measured.

        A limit that nothing meets is no error: what comes closest is kept, and the history says
        that it is missed.

        Raises:
            BadInputError: no stage before this one has quantized the network, or there are no
                calibration samples.
            BackendUnavailableError: the runtime to time on is not installed.
            ExportError: its int8 file cannot be made.
        """
        quantized = self.network(state)
        constraints = Constraints(
            DamageBudget(self.min_sqnr_db, self.max_loss),
            self.max_slowdown,
            self.max_layers,
            self.candidates,
            self.samples,
            self.batch_size,
        )
        finding = FloatSearch(
            state, constraints, PrecisionTimer(state, load_target(self.runtime))
        ).run()
        layers = quantized_layers(state.graph, quantized.encodings)
        names = {layer.node.name: layer.name for layer in layers if layer.node is not None}
        return replace(state, quantized=finding.network), _describe(finding, names)


def _describe(finding: Finding, names: dict[str, str]) -> Found:
    """Return what was found as the history keeps it."""
    return {
        "outcome": finding.reason,
        "float_layers": tuple(sorted(names[node] for node in finding.kept)),
        "float_layers_have_original_weights": finding.restored,
        "all_int8_sqnr_db": _finite(finding.int8.sqnr_db),
        "sqnr_db": _finite(finding.damage.sqnr_db),
        "predicted_sqnr_db": _finite(finding.predicted_sqnr_db),
        "all_int8_loss": finding.int8.loss,
        "loss": finding.damage.loss,
        "latency_of_all_int8": None if finding.slowdown is None else finding.slowdown.value,
        "latency_of_float32": None if finding.of_float32 is None else finding.of_float32.value,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
