"""The stage that rounds weights: what it keeps, what it writes down, what it needs before it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import Net
from torch import nn
from uneven_networks import state_of

from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.quantize.corrections.correct_bias import CorrectBias
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState
from edgedl.runtime.errors import BadInputError


def test_it_needs_a_quantized_network(float_state: ModelState) -> None:
    with pytest.raises(BadInputError, match="needs quantize_static before it"):
        RoundWeights().apply(float_state)


def test_the_float_network_stays_and_the_settings_are_written_down(float_state: ModelState) -> None:
    quantized = QuantizeStatic(samples=32).apply(float_state)
    state = RoundWeights(samples=24, batch_size=5).apply(quantized)
    assert state.graph is float_state.graph
    assert state.quantized.graph is not float_state.graph
    assert state.quantized.encodings.activations == quantized.quantized.encodings.activations
    assert [h.stage for h in state.history] == ["quantize_static", "round_weights"]
    assert state.history[1].settings == {
        "samples": 24,
        "batch_size": 5,
        "judged": 32,
        "kept": True,
    }


def test_weights_that_take_the_outputs_away_are_not_kept() -> None:
    torch.manual_seed(0)
    net = Net(lambda net, x: net.b(net.a(x).relu()).mean((2, 3)), a=nn.Conv2d(3, 8, 3))
    net.b = nn.Conv2d(8, 4, 3)
    quantized = QuantizeStatic().apply(state_of(net))
    # One sample says too little: what fits it alone does not fit the others.
    state = RoundWeights(samples=1, batch_size=1, judged=24).apply(quantized)
    assert state.history[1].settings["kept"] is False
    assert state.quantized is quantized.quantized


def test_outputs_come_closer_to_the_float_networks(float_state: ModelState) -> None:
    quantized = QuantizeStatic().apply(float_state)
    rounded = RoundWeights().apply(quantized)
    (batch,) = float_state.subject.task.batches("test", 1000)
    x = torch.tensor(batch.inputs[0])
    with torch.no_grad():
        exact = float_state.graph(x).numpy()
    errors = []
    for network in (quantized.quantized, rounded.quantized):
        (found,) = Simulation(network.graph, network.encodings)(x)
        errors.append(np.square(found.numpy() - exact).mean())
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    "stage", [RoundWeights(), LearnRounding(iterations=5), CorrectBias(), MatchStatistics()]
)
def test_a_shared_weight_stays_one(stage: Stage) -> None:
    """Corrected apart, the two layers would need two weights, and the file twice the bytes."""
    torch.manual_seed(0)
    net = Net(
        lambda n, x: n.c(F.relu(n.b(F.relu(n.b(F.relu(n.a(x))))))),
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(8, 8, 3, padding=1),
        c=nn.Conv2d(8, 2, 3),
    )
    before = QuantizeStatic().apply(state_of(net))
    after = stage.apply(before)
    sizes = [
        sum(t.numel() for t in s.quantized.graph.state_dict().values()) for s in (before, after)
    ]
    assert sizes[0] == sizes[1] == sum(p.numel() for p in net.parameters())
    shared = before.quantized.graph.get_parameter("b.weight")
    assert torch.equal(after.quantized.graph.get_parameter("b.weight"), shared)
    others = [n for n in after.quantized.graph.state_dict() if n.endswith("corrected_bias")]
    assert len(others) == 2


def test_the_same_data_gives_the_same_weights(float_state: ModelState) -> None:
    quantized = QuantizeStatic(samples=32).apply(float_state)
    tables = [
        dict(RoundWeights(samples=32).apply(quantized).quantized.graph.named_buffers())
        for _ in range(2)
    ]
    assert tables[0].keys() == tables[1].keys()
    for name, tensor in tables[0].items():
        assert torch.equal(tensor, tables[1][name])
