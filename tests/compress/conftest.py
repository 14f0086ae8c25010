"""What the tests of compress/ share: helper modules beside them, seeded weights, one state."""

from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from tiny import make_subject

from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState, begin
from edgedl.compress.targets.named import ORT
from edgedl.compress.targets.target import weight_bits


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run the tests of this folder on one thread: on small tensors a second one only waits."""
    if Path(__file__).parent not in item.path.parents:
        return (yield)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return (yield)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def float_state() -> ModelState:
    """The tiny network, traced."""
    subject = make_subject()
    return begin(subject)


@pytest.fixture(scope="session")
def int8_state(float_state: ModelState) -> ModelState:
    """The tiny network quantized as in the ``compressed`` bundle."""
    quantize = QuantizeStatic(weight_bits=weight_bits((ORT,)))
    return RoundWeights().apply(quantize.apply(float_state))
