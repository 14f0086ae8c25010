"""Blocks end where one value is all that follows reads, and together they are the network."""

import torch
import torch.nn.functional as F
from small_networks import Net, noise
from torch import fx, nn

from edgedl.compress.graph.operators.table import has_stored_weight
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.corrections.blocks import Block, find_blocks


def blocks_of(module: nn.Module, fewest: int) -> tuple[fx.GraphModule, list[Block]]:
    graph = trace(module.eval(), (noise(2, 4, 6, 6),))
    layers = [n for n in graph.graph.nodes if has_stored_weight(n)]
    return graph, find_blocks(graph, layers, fewest)


def conv() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


def layer_counts(blocks: list[Block]) -> list[int]:
    return [len(block.layers) for block in blocks]


def residual() -> nn.Module:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(net.stem(x))
        x = F.relu(net.b(F.relu(net.a(x))) + x)
        return F.relu(net.d(F.relu(net.c(x))) + x).mean((2, 3))

    return Net(forward, stem=conv(), a=conv(), b=conv(), c=conv(), d=conv())


def test_a_residual_branch_is_not_cut() -> None:
    _, blocks = blocks_of(residual(), fewest=1)
    assert layer_counts(blocks) == [1, 2, 2, 0]


def test_blocks_have_at_least_so_many_layers() -> None:
    _, blocks = blocks_of(residual(), fewest=2)
    assert layer_counts(blocks) == [3, 2, 0]
    _, blocks = blocks_of(residual(), fewest=9)
    assert layer_counts(blocks) == [5]


def test_together_they_have_every_operator_once_and_in_order() -> None:
    graph, blocks = blocks_of(residual(), fewest=2)
    operators = [n for n in graph.graph.nodes if n.op not in ("placeholder", "get_attr", "output")]
    assert [node for block in blocks for node in block.nodes] == operators


def test_an_activation_belongs_to_the_layer_before_it() -> None:
    chain = Net(lambda net, x: F.relu(net.b(F.relu(net.a(x)))), a=conv(), b=conv())
    _, blocks = blocks_of(chain, fewest=1)
    assert layer_counts(blocks) == [1, 1]
    assert [len(block.nodes) for block in blocks] == [2, 2]


def test_an_output_in_the_middle_is_given_by_its_block_and_ends_none() -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = net.a(x)
        return y, net.c(net.b(y))

    _, blocks = blocks_of(Net(forward, a=conv(), b=conv(), c=conv()), fewest=1)
    assert layer_counts(blocks) == [1, 1, 1]
    assert [len(block.gives) for block in blocks] == [1, 1, 1]


def test_no_block_ends_at_a_tuple() -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        one, two = net.a(x).chunk(2, 1)
        return net.b(one * two)

    net = Net(forward, a=nn.Conv2d(4, 8, 1), b=conv())
    _, blocks = blocks_of(net, fewest=1)
    for block in blocks:
        assert all(isinstance(n.meta["val"], torch.Tensor) for n in block.gives)


def test_a_network_that_carries_its_input_all_the_way_is_one_block() -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.b(net.a(x)) * x

    _, blocks = blocks_of(Net(forward, a=conv(), b=conv()), fewest=1)
    assert layer_counts(blocks) == [2]
