"""Files with float layers, timed on the real runtimes."""

from dataclasses import replace

import numpy as np
import pytest

from edgedl.compress.encodings.encodings import Encodings
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.compress.latency.timing import Timings
from edgedl.compress.quantize.search.layer_cost import ALL_INT8, WHOLLY_FLOAT, PrecisionTimer
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.measure import Protocol

QUICK = Protocol(blocks=8, block_ms=1.0, warmup_ms=30.0)


@pytest.mark.slow
@pytest.mark.parametrize("target", [ORT, TFLITE], ids=lambda target: target.name)
def test_files_differ_by_what_is_float_in_them(int8_state: ModelState, target: Target) -> None:
    timer = PrecisionTimer(int8_state, target, QUICK)
    files = {
        "int8": ALL_INT8,
        "again": ALL_INT8,
        "fc": frozenset({"linear"}),
        "float32": WHOLLY_FLOAT,
    }
    timings = timer.time(files)
    assert set(timings.latency_ns) == set(files)
    for ns in timings.latency_ns.values():
        assert ns.shape[:2] == (1, 8)
        assert (ns > 0).all()
    same = timings.ratio("int8", "again")
    assert same.lo <= same.value <= same.hi
    # One file for each kind, made once, and each computes something else.
    arms = dict(timer._arms)
    assert len(arms) == 3
    outputs = {np.asarray(arm()[0], np.float32).tobytes() for arm in arms.values()}
    assert len(outputs) == 3
    timer.time({"int8": ALL_INT8})
    assert timer._arms == arms


def test_ratios_and_medians() -> None:
    timings = Timings({"a": np.full((9, 4), 2e6), "b": np.full((9, 4), 3e6)})
    assert timings.ratio("a", "b").value == pytest.approx(1.5)
    assert timings.median_ms("b").value == pytest.approx(3.0)


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="quantize_static"):
        PrecisionTimer(float_state, ORT)


@pytest.mark.slow
def test_layers_that_are_float_already_stay_so(int8_state: ModelState) -> None:
    quantized = int8_state.quantized
    encodings: Encodings = replace(quantized.encodings, float_nodes=frozenset({"linear"}))
    state = replace(int8_state, quantized=QuantizedNetwork(quantized.graph, encodings))
    plain, kept = PrecisionTimer(int8_state, ORT, QUICK), PrecisionTimer(state, ORT, QUICK)
    plain.time({"fc": frozenset({"linear"})})
    kept.time({"int8": ALL_INT8})
    first, second = (next(iter(t._arms.values()))() for t in (plain, kept))
    np.testing.assert_array_equal(first[0], second[0])
