"""Residual blocks: which there are, and that a network without one is the one where it adds 0."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from prunable_networks import make
from small_networks import Net, noise, trained
from torch import Tensor, fx, nn

from edgedl.compress.graph.trace import export_graph
from edgedl.compress.prune.find_blocks import find_blocks, remove_blocks
from edgedl.models.bert import Bert
from edgedl.models.mobilenet_v2 import MobileNetV2
from edgedl.models.resnet import ResNet8, ResNetCifar
from edgedl.runtime.errors import BadInputError

PICTURE = (noise(2, 3, 32, 32),)
WORDS = (torch.arange(14).view(2, 7), torch.tensor([[1] * 7, [1] * 4 + [0] * 3]))


def pre_norm() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def normed(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            trained(module)
    return net


# Network and inputs; name of a block -> the last layer of f, silent when its parameters are 0.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], dict[str, str]]] = {
    "resnet8": (lambda: normed(ResNet8()), PICTURE, {"stack1": "stack1.bn2"}),
    "resnet20": (
        lambda: normed(ResNetCifar()),
        PICTURE,
        {
            f"stacks.{i}.{k}": f"stacks.{i}.{k}.bn2"
            for i in range(3)
            for k in range(3)
            if i == 0 or k > 0
        },
    ),
    "mobilenet_v2": (
        lambda: normed(MobileNetV2(width=0.5, head=64)),
        PICTURE,
        {
            f"features.{i}.block": f"features.{i}.block.7"
            for i in (5, 7, 8, 10, 11, 12, 14, 15, 17, 18)
        },
    ),
    "post_norm": (
        lambda: Bert(20, 16, 2, 4, 32, 12),
        WORDS,
        {
            "layers.0.attention": "layers.0.attention.projection",
            "layers.0": "layers.0.contract",
            "layers.1.attention": "layers.1.attention.projection",
            "layers.1": "layers.1.contract",
        },
    ),
    "pre_norm": (
        pre_norm,
        (noise(2, 5, 16),),
        {
            f"layers.{i}.{name}": f"layers.{i}.{layer}"
            for i in range(2)
            for name, layer in (("self_attn", "self_attn.out_proj"), ("linear2", "linear2"))
        },
    ),
}


def silenced(net: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Set all that the last layer of a block multiplies and adds to zero."""
    with torch.no_grad():
        for layer in layers:
            for parameter in net.get_submodule(layer).parameters():
                parameter.zero_()
    return net


@cache
def network(name: str) -> tuple[nn.Module, fx.GraphModule]:
    build, inputs, _ = CASES[name]
    net = build().eval()
    return net, export_graph(net, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_the_blocks_are_those_that_a_person_counts(name: str) -> None:
    assert [b.name for b in find_blocks(network(name)[1])] == list(CASES[name][2])


@pytest.mark.parametrize("name", list(CASES))
def test_without_a_block_the_network_is_the_one_where_it_adds_nothing(name: str) -> None:
    build, inputs, expected = CASES[name]
    net, graph = network(name)
    names = list(expected)
    for removed in (names[::2], names):
        smaller = remove_blocks(graph, removed)
        reference = build().eval()
        reference.load_state_dict(net.state_dict())
        silenced(reference, [expected[n] for n in removed])
        with torch.no_grad():
            wanted = reference(*inputs)
            torch.testing.assert_close(smaller(*inputs), wanted, rtol=1e-4, atol=1e-5)
            assert not torch.equal(net(*inputs), wanted)
        left = [b.name for b in find_blocks(smaller)]
        assert len(left) == len(names) - len(removed)
        tensors = dict(smaller.named_parameters())
        assert not any(t.startswith(expected[n]) for t in tensors for n in removed)


def convolutional(forward: Callable[..., Tensor], **more: nn.Module) -> nn.Module:
    layers = {"first": nn.Conv2d(3, 3, 3, padding=1), "second": nn.Conv2d(3, 3, 1), **more}
    return Net(forward, **layers).eval()


def summed_in_place(m: Net, x: Tensor) -> Tensor:
    x = m.first(x)
    y = m.second(x)
    y += x
    return y.relu_() - x


def summed_over_the_shortcut(m: Net, x: Tensor) -> Tensor:
    x = m.first(x)
    x += m.second(x)
    return x + x.mean()


def shortcut_changed_before(m: Net, x: Tensor) -> Tensor:
    x = m.first(x)
    return x + m.second(F.relu(x, inplace=True))


def sum_changed_through_a_view(m: Net, x: Tensor) -> Tensor:
    x = m.first(x)
    y = x + m.second(x)
    return y.view(-1, 3, 8, 8).relu_() * x


IN_PLACE = (
    summed_in_place,
    summed_over_the_shortcut,
    shortcut_changed_before,
    sum_changed_through_a_view,
)


@pytest.mark.parametrize("forward", IN_PLACE)
def test_what_is_changed_in_place_stays_what_it_was(forward: Callable[..., Tensor]) -> None:
    inputs = (noise(2, 3, 8, 8),)
    net = convolutional(forward)
    smaller = remove_blocks(export_graph(net, inputs), ["second"])
    torch.testing.assert_close(smaller(*inputs), silenced(net, ["second"])(*inputs))


NO_BLOCKS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    # f is read twice.
    "shared": lambda m, x: (x + (y := m.first(x))) * y,
    # An inner value of f is an output of something else too.
    "inner": lambda m, x: x + m.second(y := m.first(x)) + y.mean(),
    # The shortcut is a layer.
    "projection": lambda m, x: m.second(x) + m.first(x),
    # What is added reads another trained value.
    "gated": lambda m, x: (y := m.first(x)) + m.second(y * m.gate(x)),
    # No layer in it: an activation written out.
    "activation": lambda m, x: (y := m.first(x)) + 0.044715 * y**3,
    # Each position gets the mean of all.
    "broadcast": lambda m, x: x + m.first(x).mean((2, 3), keepdim=True),
    # Weighted sum.
    "scaled": lambda m, x: torch.add(m.first(x), x, alpha=2),
    # f changes what the shortcut carries, through a view of it.
    "overwriting": lambda m, x: (y := m.first(x)) + m.second(y.view(y.shape).relu_()),
}


@pytest.mark.parametrize("name", list(NO_BLOCKS))
def test_what_is_no_block_is_not_taken_for_one(name: str) -> None:
    forward = NO_BLOCKS[name]
    net = convolutional(forward, gate=nn.Conv2d(3, 3, 1))
    assert find_blocks(export_graph(net, (noise(2, 3, 8, 8),))) == []


def test_a_block_inside_another_goes_with_it() -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.outer(x)
        y = y + m.first(y)
        return m.head((x + m.second(y)).mean((2, 3)))

    outer, head = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)
    net = convolutional(forward, outer=outer, head=head)
    inputs = (noise(2, 3, 8, 8),)
    graph = export_graph(net, inputs)
    assert [b.name for b in find_blocks(graph)] == ["first", "second"]
    for removed in (["second"], ["first", "second"], ["second", "first"]):
        smaller = remove_blocks(graph, removed)
        assert [n for n, _ in smaller.named_parameters()] == ["head.weight", "head.bias"]
        torch.testing.assert_close(smaller(*inputs), head(inputs[0].mean((2, 3))))


@pytest.mark.parametrize("shortcut_first", [True, False])
def test_a_long_skip_outlives_the_blocks_inside_it(shortcut_first: bool) -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        x = m.outer(x)
        y = x + m.first(x)
        y = y + m.second(y)
        return x + y if shortcut_first else y + x

    net = convolutional(forward, outer=nn.Conv2d(3, 3, 1))
    inputs = (noise(2, 3, 8, 8),)
    graph = export_graph(net, inputs)
    names = [b.name for b in find_blocks(graph)]
    assert len(names) == 3
    x = net.outer(inputs[0])
    for order in permutations(names):
        torch.testing.assert_close(remove_blocks(graph, order)(*inputs), x)
    for order in permutations(names[:2]):
        torch.testing.assert_close(remove_blocks(graph, order)(*inputs), 2 * x)


def test_an_unknown_block_is_refused_with_those_there_are() -> None:
    module, inputs = make("attention")
    with pytest.raises(BadInputError, match=r"no block 'expand' .* It has out, contract"):
        remove_blocks(export_graph(module, inputs), ["expand"])
