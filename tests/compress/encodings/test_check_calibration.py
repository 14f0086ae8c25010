"""Calibration data that cannot be what the network will meet is called that."""

import numpy as np
import pytest
import torch
from small_networks import network

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.check_calibration import calibration_warnings
from edgedl.compress.encodings.quantized_network import QuantizedNetwork
from edgedl.runtime.task.task import ArrayTask, Samples


def warnings(
    factor: float = 1.0, count: int = 48, step: int = 1, samples: int | None = None
) -> tuple[str, ...]:
    """Calibrate on the first samples times a factor, and look at all of them.

    With a step of 0 the first sample is repeated.
    """
    net = network("operators")
    seen = tuple(factor * x[step * torch.arange(count)] for x in net.inputs)
    task = ArrayTask(
        "noise",
        {
            "calibration": lambda: Samples(tuple(x.numpy() for x in seen), np.zeros(count)),
            "test": lambda: Samples(net.arrays, np.zeros(len(net.arrays[0]))),
        },
    )
    quantized = QuantizedNetwork(net.graph, calibrate(net.graph, [seen], "mse"))
    return calibration_warnings(quantized, task, samples)


def test_data_of_one_kind_raise_no_doubt() -> None:
    assert warnings() == ()


@pytest.mark.parametrize(
    ("factor", "count", "part"),
    [
        (0.1, 48, "% of the values of test input 0 are outside"),
        (0.0, 48, "input 0 has one value, 0, in all calibration data"),
        (1.0, 31, "only 31 calibration samples"),
        (1.0, 1, "there is only 1 calibration sample:"),
    ],
)
def test_reasons_to_doubt(factor: float, count: int, part: str) -> None:
    assert any(part in sentence for sentence in warnings(factor, count))


def test_a_range_that_is_hardly_used_is_doubted() -> None:
    """Pixels of 0 to 255 in calibration, of 0 to 1 in the test."""
    (sentence,) = warnings(255.0)
    assert sentence.startswith("the values of test input 0 use 0.")
    assert warnings(2.0) == ()


def test_samples_that_are_all_one_are_doubted() -> None:
    assert "the first 48 calibration samples are all the same" in warnings(step=0)


def test_samples_that_the_stage_did_not_use_do_not_count() -> None:
    assert warnings(samples=31) == (
        "there are only 31 calibration samples: ranges may be too narrow",
    )


def test_the_share_outside_is_counted() -> None:
    net = network("operators")
    values = net.arrays[0]
    lo, hi = 0.1 * values.min(), 0.1 * values.max()
    share = 100 * ((values < lo) | (values > hi)).mean()
    assert warnings(0.1)[0].startswith(f"{share:.0f} %")
