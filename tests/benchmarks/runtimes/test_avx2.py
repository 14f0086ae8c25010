"""The emulator of kernels without VNNI: the usual integers where nothing saturates."""

import pytest
import torch
from small_networks import network

from benchmarks.runtimes.avx2 import WithoutVnni
from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.simulate import Simulation


@pytest.mark.parametrize("name", ["operators", "joined", "gated"])
def test_seven_bits_compute_what_they_should(name: str) -> None:
    net = network(name)
    table = calibrate(net.graph, [net.inputs], "minmax", weight_bits=7)
    emulated = WithoutVnni(net.graph, table)
    (expected,) = Simulation(net.graph, table)(*net.inputs)
    (found,) = emulated(*net.inputs)
    assert emulated.pairs > 0
    assert emulated.saturated == 0
    assert float((found - expected).abs().max()) <= 1.001 * max(net.steps)
    assert float((found - expected).abs().mean()) < 0.01 * max(net.steps)


def test_eight_bits_saturate_where_both_are_large() -> None:
    """Inputs and weights at the ends of their grids: a pair of products does not fit 16 bits."""
    net = network("joined")
    largest = torch.full_like(net.inputs[0], float(net.inputs[0].max()))
    table = calibrate(net.graph, [net.inputs], "minmax")
    emulated = WithoutVnni(net.graph, table)
    node = emulated.weighted[0]
    emulated.set_weight(node, torch.full_like(emulated.weight(node), 1.0), emulated.bias(node))
    emulated(largest)
    assert emulated.saturated > 0
