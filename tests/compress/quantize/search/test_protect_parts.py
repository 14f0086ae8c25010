"""Layers are kept in float where int8 would destroy a part of an output."""

from typing import Any

import numpy as np
import torch
from small_networks import Net, noise_task
from torch import nn

from edgedl.compress.encodings.emit import emit
from edgedl.compress.graph.run import run_graph
from edgedl.compress.quantize.search.protect_parts import ProtectParts
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT


def quantized(net: nn.Module, *shape: int) -> ModelState:
    subject = Subject("parts", net, noise_task(shape))
    return QuantizeStatic(samples=64).apply(begin(subject))


def two_ranges() -> nn.Module:
    torch.manual_seed(0)
    net = Net(lambda n, x: n.head(n.body(x).relu()), body=nn.Linear(6, 16), head=nn.Linear(16, 4))
    net.head.weight.data[2:] *= 1e-3
    net.head.bias.data[2:] *= 1e-3
    return net


def weakest(state: ModelState) -> float:
    x = np.random.default_rng(1).normal(size=(64, 6)).astype(np.float32)
    wanted = run_graph(state.graph, (x,))[0][:, 2:]
    emitted = emit(state.quantized.graph, state.quantized.encodings, ORT)
    found = run_graph(emitted, (x,))[0][:, 2:]
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


def test_the_layer_of_two_ranges_is_kept_in_float() -> None:
    state = quantized(two_ranges(), 6)
    stage = ProtectParts()
    assert stage.finds_damage(state)
    assert weakest(state) < 10
    cured = stage.apply(state)
    assert cured.history[-1].settings["kept_float"] == ("head",)
    assert cured.history[-1].settings["cured"] is True
    assert not stage.finds_damage(cured)
    assert weakest(cured) > 20


def test_a_network_without_damage_is_left_alone() -> None:
    torch.manual_seed(0)

    def forward(net: Any, x: Any) -> Any:
        return net.head(net.body(x).relu())

    state = quantized(Net(forward, body=nn.Linear(6, 16), head=nn.Linear(16, 4)), 6)
    assert not ProtectParts().finds_damage(state)
