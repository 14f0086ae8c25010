"""Layers as a user names them: each int8 node is in one, and its name keeps it alone in float."""

from dataclasses import replace

import pytest
import torch
from small_networks import NETWORKS, network, noise
from torch import nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.placement import place, quantized_nodes
from edgedl.compress.encodings.quantized_layers import INPUT, quantized_layers
from edgedl.compress.graph.layers import find_layers
from edgedl.compress.graph.operators.table import is_quantizable, moves_values
from edgedl.compress.graph.run import count_macs
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets.named import ORT


def layers_of(name):
    net = network(name)
    return quantized_layers(net.graph, net.encodings)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_rounded_value_is_in_exactly_one_layer(name):
    net = network(name)
    seen = [node for layer in layers_of(name) for node in layer.values]
    assert len(seen) == len(set(seen))
    placed = place(net.graph.graph, net.encodings, ORT)
    assert {n for n in placed if n.op != "get_attr"} <= set(seen)
    chosen = quantized_nodes(net.graph.graph, net.encodings)
    assert set(seen) == chosen | {n for n in net.graph.graph.nodes if n.op == "placeholder"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_name_of_a_layer_keeps_it_alone_in_float(name):
    net = network(name)
    operators = [n for n in net.graph.graph.nodes if is_quantizable(n) and not moves_values(n)]
    whole = layers_of(name)
    assert len({layer.name for layer in whole}) == len(whole)
    for layer in whole[1:]:
        kept = frozenset(n.name for n in find_layers(operators, [layer.name]))
        left = quantized_layers(net.graph, replace(net.encodings, float_nodes=kept))
        # Nobody rounds the inputs if their one reader is float.
        gone = {layer.name} | ({INPUT} if whole[0].readers == {layer.node.name} else set())
        assert [x.name for x in left] == [x.name for x in whole if x.name not in gone]


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_accumulates_add_up_to_the_networks(name):
    net = network(name)
    expected = count_macs(net.graph, tuple(x[:1] for x in net.inputs))
    assert sum(layer.macs for layer in layers_of(name)) == expected


def test_names_operators_and_readers():
    layers = {layer.name: layer for layer in layers_of("operators")}
    first, *_ = [x for x in layers.values() if x.node is not None]
    assert layers["input"].readers == {first.node.name}
    assert layers["grouped"].operator == "conv2d"
    # Batch norm folded in, clamp fused.
    assert len(layers["grouped"].values) == 2
    # The module "shared" runs twice: its path would name both.
    assert "shared" not in layers
    shared = {x.node.name for x in layers.values() if x.module == "shared"}
    assert len(shared) == 2
    assert shared <= layers.keys()
    assert {x.name for x in layers.values() if layers["add"].node.name in x.readers} == shared
    # The average pool is read through a flatten.
    assert {layers["hidden"].node.name} in [x.readers for x in layers.values()]
    assert layers["fc"].readers == frozenset()


def test_all_inputs_are_one_layer_and_constants_belong_to_their_reader():
    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = torch.nn.Buffer(noise(3))

        def forward(self, x, y):
            return (x + self.shift) + y

    inputs = (noise(8, 3), noise(8, 3, seed=1))
    graph = trace(Shifted(), inputs)
    layers = quantized_layers(graph, calibrate(graph, [inputs], "minmax"))
    assert [layer.name for layer in layers] == ["input", "add", "add_1"]
    assert {n.name for n in layers[0].values} == {"x", "y"}
    assert layers[0].readers == {"add", "add_1"}
    assert [len(layer.constants) for layer in layers] == [0, 1, 0]


def test_float_layers_are_left_out():
    net = network("operators")
    nodes = frozenset(x.node.name for x in layers_of("operators")[1:])
    assert quantized_layers(net.graph, replace(net.encodings, float_nodes=nodes)) == []


def test_an_embedding_in_front_is_a_layer_by_its_own_name():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.last = nn.Embedding(20, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.last(self.words(x))

    torch.manual_seed(0)
    ids = torch.randint(0, 20, (6, 5))
    graph = trace(Words().eval(), (ids,))
    layers = quantized_layers(graph, calibrate(graph, [(ids,)], "minmax"))
    assert [layer.name for layer in layers if layer.node is not None] == ["words", "last"]
