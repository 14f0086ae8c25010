"""The rule of acceptance: what is refused, what ships with a finding, what ships."""

from typing import Any

import pytest

from edgedl.compress.errors import ExportError
from edgedl.compress.parity.acceptance import (
    accept,
    computes_its_graph,
    destroyed,
    is_decided,
    needed_db,
)
from edgedl.runtime.bundle.certificates import OutputParity, Parity, PartParity
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.precision import DYNAMIC_INT8, FLOAT32, INT8, Precision
from edgedl.runtime.selfcheck.golden import GoldenCheck


def output(**more: Any) -> OutputParity:
    numbers = {"max_abs_error": 0.1, "mean_abs_error": 0.01, "max_lsb": None, "mean_lsb": None}
    decibels = {"sqnr_db": 35.0, "float32_sqnr_db": 28.0, "graph_sqnr_db": 29.0}
    return OutputParity("y", **{**numbers, **decibels, **more})


def part(sqnr_db: float | None, constant: float = 0.0, saturated: float = 0.0) -> PartParity:
    return PartParity("scores", 8, sqnr_db, constant, saturated)


def accepted(precision: str, error: float, one: OutputParity) -> Artifact:
    artifact = Artifact("ort-x", "ort", precision, "x.onnx", (), (), (0.1,))
    parity = Parity(50, error, error, None, None, None, "ort", None, (one,))
    return accept(artifact, parity, GoldenCheck("ort-x", error, 0.1))


def test_a_file_within_its_tolerance_ships_as_it_is() -> None:
    assert accepted("int8", 0.1, output(sqnr_db=1.0)).golden_tolerances == (0.1,)


def test_integers_that_differ_in_single_values_get_the_tolerance_they_need() -> None:
    made = accepted("int8", 0.4, output())
    assert made.golden_tolerances == pytest.approx((0.6,))
    assert made.parity is not None


@pytest.mark.parametrize(
    ("precision", "one"),
    [
        ("int8", output(sqnr_db=20.0)),
        ("int8", output(sqnr_db=None)),
        ("dynamic_int8", output(sqnr_db=9.0, graph_sqnr_db=None)),
        ("float32", output(sqnr_db=60.0, graph_sqnr_db=None)),
        ("float16", output(sqnr_db=60.0, graph_sqnr_db=None)),
        ("int8_weights", output(sqnr_db=60.0)),
    ],
)
def test_what_does_not_compute_its_graph_is_refused(precision: str, one: OutputParity) -> None:
    with pytest.raises(ExportError, match=r"differs from the torch graph by 0\.4"):
        accepted(precision, 0.4, one)


@pytest.mark.parametrize(
    ("precision", "one", "decided"),
    [
        (INT8, output(sqnr_db=36.0), True),
        (INT8, output(sqnr_db=None), True),
        # Needed are the 29 dB of its graph.
        (INT8, output(sqnr_db=33.0), False),
        (DYNAMIC_INT8, output(sqnr_db=16.0), True),
        (DYNAMIC_INT8, output(sqnr_db=14.0), False),
        (FLOAT32, output(sqnr_db=20.0), True),
        (INT8, output(float32_sqnr_db=14.0), False),
        (INT8, output(parts=(part(26.0), part(None))), True),
        (INT8, output(parts=(part(26.0), part(14.0))), False),
        # Weak, and about to be 10 dB behind the whole.
        (INT8, output(float32_sqnr_db=30.0, parts=(part(24.0),)), False),
        (INT8, output(float32_sqnr_db=28.0, parts=(part(24.0),)), True),
        (INT8, output(parts=(part(26.0, constant=0.34),)), True),
        (INT8, output(parts=(part(26.0, constant=0.36),)), False),
        (INT8, output(parts=(part(26.0, saturated=0.12),)), False),
    ],
)
def test_more_samples_are_asked_near_a_limit(
    precision: Precision, one: OutputParity, decided: bool
) -> None:
    assert is_decided([output(sqnr_db=None), one], precision) is decided


def test_what_is_refused_or_found_is_never_decided_early() -> None:
    for db in range(40):
        one = output(sqnr_db=float(db), float32_sqnr_db=None, graph_sqnr_db=None)
        two = output(float32_sqnr_db=28.0, parts=(part(float(db)),))
        assert computes_its_graph(one, INT8) or not is_decided([one], INT8)
        assert not destroyed(two) or not is_decided([two], INT8)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ExportError, match="not finite"):
        accepted("int8", float("nan"), output())


def test_as_much_noise_as_the_precision_makes_is_allowed() -> None:
    assert needed_db(output(graph_sqnr_db=18.0), INT8) == 18.0
    assert needed_db(output(graph_sqnr_db=50.0), INT8) == 30.0
    assert needed_db(output(graph_sqnr_db=None), INT8) == 30.0
    assert needed_db(output(graph_sqnr_db=None), DYNAMIC_INT8) == 10.0


@pytest.mark.parametrize(
    ("one", "evidence"),
    [
        (output(parts=(part(30.0), part(25.0))), []),
        (output(parts=(part(40.0), part(3.0))), ["3.0 dB of the float network"]),
        (output(parts=(part(40.0), part(17.0))), ["17.0 dB of the float network"]),
        (output(parts=(part(40.0), part(19.0)), float32_sqnr_db=24.0), []),
        (
            output(parts=(part(40.0, constant=0.6),)),
            ["60 % of the values that vary in the float network are constant"],
        ),
        (output(parts=(part(22.0, saturated=0.3),)), ["30 % of the values are clipped"]),
        (output(parts=(part(None),)), []),
        (output(float32_sqnr_db=4.0), ["4.0 dB of the float network"]),
    ],
)
def test_destroyed_parts_are_found(one: OutputParity, evidence: list[str]) -> None:
    assert [why for _, why in destroyed(one)] == evidence
