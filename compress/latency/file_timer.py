"""Networks of one kind timed against the one they are made of, each as a file on its runtime."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import fx

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.graph.edit import copy_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.latency.price_folder import price_folder, price_key
from edgedl.compress.latency.timing import check_runs_here, load_arm, time_arms
from edgedl.compress.stage import MILDER
from edgedl.compress.state import ModelState
from edgedl.compress.subject.calibration import calibration_inputs
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.measure import Arm, Protocol
from edgedl.runtime.precision import Precision

# The name of a precision that a stage times files in.
TimedPrecision = Literal["float32", "int8"]

# Calibration samples of the int8 files that are timed: ranges do not change their speed.
SAMPLES = 32
WHOLE = "whole"


@dataclass(frozen=True)
class Prices:
    """Latency ratios of changed networks.

    Attributes:
        ratios: by name, over the latency of the whole network.
        cached: how many of them were measured before, on this machine.
    """

    ratios: dict[str, Estimate]
    cached: int


class FileTimer:
    """Times smaller networks against the whole one: exported, loaded, one thread, batch 1."""

    def __init__(
        self,
        state: ModelState,
        whole: fx.GraphModule,
        target: Target,
        precision: Precision,
        protocol: Protocol | None = None,
    ) -> None:
        """Take the whole network; it is exported when something is timed.

        Args:
            state: whose data the files are calibrated with.
            whole: graph of ``export_graph``.
            target: whose runtime loads the files.
            precision: of the files.
            protocol: of the measurement.

        Raises:
            BackendUnavailableError: the runtime is not here.
        """
        check_runs_here(target)
        self._state = state
        self._target, self._precision = target, precision
        self._protocol = protocol or Protocol()
        self._graph = whole
        self._whole: Arm | None = None

    def prices(self, graphs: Mapping[str, fx.GraphModule]) -> "Prices":
        """Return the ratios, those measured before on this machine from its cache."""
        folder = price_folder(self._state.workspace)
        keys = {
            name: price_key(self._graph, graph, self._target.name, self._precision.name)
            for name, graph in graphs.items()
        }
        known = {n: ratio for n, key in keys.items() if (ratio := folder.read(key)) is not None}
        missing = {n: graph for n, graph in graphs.items() if n not in known}
        measured = self.ratios(missing) if missing else {}
        try:
            for name, ratio in measured.items():
                folder.write(keys[name], ratio)
        except OSError as error:
            self._state.progress.note(f"measured latencies are not cached ({error})")
        return Prices({n: (known | measured)[n] for n in graphs}, len(known))

    def ratios(self, graphs: Mapping[str, fx.GraphModule]) -> dict[str, Estimate]:
        """Return latency over that of the whole network, by name of the graph.

        Raises:
            ExportError: a file cannot be made.
            BadInputError: the runtime refuses a file, or there is no calibration data.
            InvalidMeasurementError: the clock is too coarse.
        """
        if self._whole is None:
            self._whole = self._load(self._graph)
        arms = {WHOLE: self._whole}
        arms |= {name: self._load(graph) for name, graph in graphs.items()}
        found = time_arms(arms, self._protocol)
        return {name: found.ratio(WHOLE, name) for name in graphs}

    def _load(self, graph: fx.GraphModule) -> Arm:
        subject = self._state.subject
        network = TracedNetwork(copy_graph(graph))
        canonical = trace(network, subject.example_inputs(), subject.free_axes)
        state = ModelState(replace(subject, module=network), canonical)
        if not self._precision.is_float:
            state = _quantized(state)
        return load_arm(state, self._target, self._precision)


def milder_speedup(speedup: float) -> float:
    """Return a speed-up that takes less away.

    >>> milder_speedup(2.0)
    1.7
    """
    return round(1 + (speedup - 1) * MILDER, 4)


def _quantized(state: ModelState) -> ModelState:
    """Return a state with a table of the least and largest values: ranges do not change speed."""
    batches = calibration_inputs(state.subject.task, SAMPLES, SAMPLES)
    table = calibrate(state.graph, batches, "minmax")
    return replace(state, quantized=QuantizedNetwork(state.graph, table))


def first_fast_enough(
    last: int, measured: Callable[[int], Estimate], speedup: float
) -> tuple[int, Estimate, Estimate]:
    """Return the first step of a path of ever faster networks that is fast enough, by bisection.

    It is fast enough by the upper end of its measured interval.

    Args:
        last: step of the fastest; step 0 is the whole network.
        measured: latency of a step over that of the whole network.
        speedup: latency of the whole network over what is wanted.

    Returns:
        The step, its latency, and that of the last.

    Raises:
        BadInputError: the last one is not fast enough.
    """
    wanted = 1 / speedup
    fastest = measured(last) if last else Estimate(1.0, 1.0, 1.0)
    if fastest.hi > wanted:
        raise BadInputError(
            f"the network is {1 / fastest.value:.2f} times faster at its smallest, less than "
            f"{speedup}: lower speedup"
        )
    step, found = bisect(0, last, fastest, measured, wanted)
    return step, found, fastest


def bisect(
    slow: int, fast: int, latency: Estimate, measured: Callable[[int], Estimate], wanted: float
) -> tuple[int, Estimate]:
    """Return the first step that is fast enough, and its latency.

    Args:
        slow: a step that is not; those before it are never measured.
        fast: a later one that is.
        latency: of ``fast``.
        measured: latency of a step over that of the whole network.
        wanted: what its upper end may be at most.
    """
    while fast - slow > 1:
        middle = (slow + fast) // 2
        found = measured(middle)
        if found.hi <= wanted:
            fast, latency = middle, found
        else:
            slow = middle
    return fast, latency
