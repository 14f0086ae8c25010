"""Files timed against each other on a runtime, while a stage decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from edgedl.compress.artifacts.loaded_file import build_and_load
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import Target
from edgedl.runtime.backends.runtimes import RUNTIMES, open_backend
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.latency_intervals import paired_ratio, typical_latency
from edgedl.runtime.measure.measure import Arm, Protocol, measure
from edgedl.runtime.precision import Precision

# The name of a runtime that a stage times files on.
Runtime = Annotated[str, Meta(pattern=f"^({'|'.join(RUNTIMES)})$")]


@dataclass(frozen=True)
class Timings:
    """Files timed in one process, interleaved.

    Attributes:
        latency_ns: name of the file -> float64 [loads, blocks, calls].
    """

    latency_ns: Mapping[str, npt.NDArray[np.float64]]

    def ratio(self, baseline: str, candidate: str) -> Estimate:
        """Return a file's latency over another's, with its 95 % interval."""
        return paired_ratio(self.latency_ns[baseline], self.latency_ns[candidate])

    def median_ms(self, name: str) -> Estimate:
        """Return a file's median latency in milliseconds, with its 95 % interval."""
        found = typical_latency(self.latency_ns[name])
        return Estimate(found.value / 1e6, found.lo / 1e6, found.hi / 1e6)


def time_arms(arms: Mapping[str, Arm], protocol: Protocol) -> Timings:
    """Time loaded files against each other.

    Raises:
        InvalidMeasurementError: the clock is too coarse.
    """
    found = measure(arms, protocol)
    return Timings({name: m.latency_ns.astype(np.float64) for name, m in found.items()})


def check_runs_here(target: Target) -> None:
    """Refuse to time on a runtime that is not on this machine, before any work.

    Raises:
        BackendUnavailableError: the message says what to do.
    """
    availability = open_backend(target.runtime).available()
    if not availability.usable:
        raise BackendUnavailableError(availability.detail)


def load_arm(state: ModelState, target: Target, precision: Precision) -> Arm:
    """Make a network's file and load it: one thread, one sample of the calibration split.

    Raises:
        ExportError: the file cannot be made.
        BadInputError: the runtime refuses it.
        BackendUnavailableError: the runtime is not installed.
    """
    return build_and_load(state, target, precision).timed


def this_machine() -> str:
    """Return what decides how long files take here: processor, instruction sets, runtimes."""
    context = run_context()
    return f"{context.cpu}; {' '.join(context.isa)}; {context.packages}"
