"""What float layers cost: files with and without them, timed against each other on a runtime."""

from collections.abc import Mapping
from dataclasses import replace

from edgedl.compress.latency.timing import Timings, check_runs_here, load_arm, time_arms
from edgedl.compress.quantize.refinement import quantized_by
from edgedl.compress.state import ModelState
from edgedl.compress.targets.target import Target
from edgedl.runtime.measure.measure import Arm, Protocol
from edgedl.runtime.precision import FLOAT32, INT8

# The operators that a file computes in float besides those the network's table names; None is the
# float32 file.
FloatNodes = frozenset[str] | None
ALL_INT8: FloatNodes = frozenset()
WHOLLY_FLOAT: FloatNodes = None


class PrecisionTimer:
    """Exports files of one network, each once, and times them with one thread, batch 1.

    What the runtime converts between float and integer layers is part of the time.
    """

    def __init__(self, state: ModelState, target: Target, protocol: Protocol | None = None) -> None:
        """Take the sample to run from the calibration split.

        Raises:
            BadInputError: the state is not quantized.
            BackendUnavailableError: the runtime is not here.
        """
        quantized_by(state, "layer_cost", ("int8",))
        check_runs_here(target)
        self._state, self._target = state, target
        self._protocol = protocol or Protocol()
        self._arms: dict[FloatNodes, Arm] = {}

    def time(self, files: Mapping[str, FloatNodes]) -> Timings:
        """Time files against each other.

        Args:
            files: name -> what is float in it; two names may stand for one file, whose two times
                then show the noise floor.

        Raises:
            ExportError: a file cannot be made.
            BadInputError: the runtime refuses a file.
            InvalidMeasurementError: the clock is too coarse.
        """
        arms = {name: self._arm(float_nodes) for name, float_nodes in files.items()}
        return time_arms(arms, self._protocol)

    def _arm(self, float_nodes: FloatNodes) -> Arm:
        if float_nodes not in self._arms:
            state = _with_float(self._state, float_nodes)
            precision = FLOAT32 if float_nodes is None else INT8
            self._arms[float_nodes] = load_arm(state, self._target, precision)
        return self._arms[float_nodes]


def _with_float(state: ModelState, float_nodes: FloatNodes) -> ModelState:
    if float_nodes is None or state.quantized is None:
        return state
    encodings = state.quantized.encodings
    kept = encodings.float_nodes | float_nodes
    return replace(
        state,
        quantized=replace(state.quantized, encodings=replace(encodings, float_nodes=kept)),
    )
