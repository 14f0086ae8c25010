"""Calibration data that cannot be what the network will meet is called that."""

import numpy as np
import pytest
from small_networks import network

from edgedl.compress.quantize.calibrate import calibrate
from edgedl.compress.quantize.check_calibration import calibration_warnings
from edgedl.compress.quantize.network import QuantizedNetwork
from edgedl.runtime.task import ArrayTask, Samples


def warnings(factor: float = 1.0, count: int = 48) -> tuple[str, ...]:
    """Calibrate on the first samples times a factor, and look at all of them."""
    net = network("operators")
    seen = tuple(factor * x[:count] for x in net.inputs)
    task = ArrayTask(
        "noise",
        {
            "calibration": lambda: Samples(tuple(x.numpy() for x in seen), np.zeros(count)),
            "test": lambda: Samples(net.arrays, np.zeros(len(net.arrays[0]))),
        },
    )
    quantized = QuantizedNetwork(net.graph, calibrate(net.graph, [seen], "mse"))
    return calibration_warnings(quantized, task)


def test_data_of_one_kind_raise_no_doubt() -> None:
    assert warnings() == ()


@pytest.mark.parametrize(
    ("factor", "count", "part"),
    [
        (0.1, 48, "% of the values of test input 0 lie outside"),
        (0.0, 48, "input 0 has one value, 0, in all calibration data"),
        (1.0, 31, "only 31 calibration samples"),
        (1.0, 1, "only 1 calibration samples"),
    ],
)
def test_reasons_to_doubt(factor: float, count: int, part: str) -> None:
    assert any(part in sentence for sentence in warnings(factor, count))


def test_the_share_outside_is_counted() -> None:
    net = network("operators")
    values = net.arrays[0]
    lo, hi = 0.1 * values.min(), 0.1 * values.max()
    share = 100 * ((values < lo) | (values > hi)).mean()
    assert warnings(0.1)[0].startswith(f"{share:.0f} %")
