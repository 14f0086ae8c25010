"""Block reconstruction: nearer outputs, weights on their grid, and what it leaves alone."""

import msgspec
import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, TwoInputs, noise_task
from torch import nn

from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.reconstruct_blocks import ReconstructBlocks
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.errors import BadInputError

STAGE = ReconstructBlocks(samples=32, batch_size=8, iterations=100, learning_rate=0.02)


def residual() -> nn.Module:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.stem(x))
        for name in "ab":
            x = F.relu(getattr(net, f"{name}2")(F.relu(getattr(net, f"{name}1")(x))) + x)
        return net.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    convs = {name: nn.Conv2d(6, 6, 3, padding=1) for name in ("a1", "a2", "b1", "b2")}
    return Net(forward, stem=nn.Conv2d(3, 6, 3, padding=1), fc=nn.Linear(6, 5), **convs)


def quantized(module: nn.Module, *shapes: tuple[int, ...], bits: int = 3) -> ModelState:
    task = noise_task(*shapes)
    subject = Subject("small", module.eval(), task)
    graph = trace(subject.module, subject.example_inputs(), subject.free_axes)
    quantize = QuantizeStatic(samples=32, weight_bits=bits)
    return quantize.apply(ModelState(subject, graph))


def error(state: ModelState) -> float:
    """Return the squared error of the outputs on the test split."""
    network = state.quantized
    assert network is not None
    batch = next(iter(state.subject.task.batches("test", 1000)))
    inputs = tuple(torch.tensor(x) for x in batch.inputs)
    with torch.no_grad():
        exact = state.graph(*inputs)
        found = Simulation(network.graph, network.encodings)(*inputs)[0]
    return float((found - exact).square().mean())


def test_outputs_are_nearer_than_with_the_nearest_weights() -> None:
    state = quantized(residual(), (3, 8, 8))
    assert error(STAGE.apply(state)) < 0.5 * error(state)


def test_every_weight_is_one_of_the_two_next_to_it() -> None:
    state = quantized(residual(), (3, 8, 8))
    before = Simulation(state.quantized.graph, state.quantized.encodings)
    after = STAGE.apply(state).quantized
    assert after.encodings.activations == state.quantized.encodings.activations
    simulation = Simulation(after.graph, after.encodings)
    moved = 0
    for old, new in zip(before.weighted, simulation.weighted, strict=True):
        step = before.scales[old].view(-1, *[1] * (before.weight(old).ndim - 1))
        torch.testing.assert_close(simulation.scales[new], before.scales[old])
        found = simulation.weight(new) / step
        torch.testing.assert_close(found, found.round(), atol=1e-4, rtol=0)
        whole = before.weight(old) / step
        assert (found - whole).abs().max() < 1 + 1e-4
        moved += int((found.round() != whole.round()).sum())
    assert moved > 0


def test_the_same_seed_gives_the_same_weights() -> None:
    state = quantized(residual(), (3, 8, 8))
    stage = msgspec.structs.replace(STAGE, iterations=20)
    assert error(stage.apply(state)) == error(stage.apply(state))


def test_shared_weights_stay_as_they_are() -> None:
    shared = Net(lambda net, x: net.a(F.relu(net.a(x))), a=nn.Conv2d(4, 4, 3, padding=1))
    state = quantized(shared, (4, 6, 6))
    after = msgspec.structs.replace(STAGE, iterations=5).apply(state)
    assert after.history[-1].settings["blocks"] == 1
    assert error(after) == error(state)


def test_several_inputs_and_outputs() -> None:
    def forward(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        x = F.relu(net.a(x))
        return [net.c(x + F.relu(net.b(y))), x]

    net = TwoInputs(forward, **{name: nn.Linear(6, 6) for name in "abc"})
    state = quantized(net, (6,), (6,))
    after = msgspec.structs.replace(STAGE, layers=1).apply(state)
    assert after.history[-1].settings["better"] > 0


def test_a_block_that_gives_integers_keeps_the_nearest_weights() -> None:
    net = Net(lambda net, x: net.a(x).argmax(1).float(), a=nn.Conv2d(3, 6, 3))
    state = quantized(net, (3, 8, 8))
    after = msgspec.structs.replace(STAGE, iterations=5).apply(state)
    assert error(after) == error(state)


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="reconstruct_blocks works on a quantized network"):
        ReconstructBlocks().apply(float_state)
