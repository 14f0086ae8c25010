"""Networks drawn at random of layers through which channels go, and of those that mix them."""

import torch
from random_maps import MAPS, Draw, Layer, Make
from random_sequences import SERIES, TOKENS
from small_networks import Net
from torch import Tensor, nn


def _to_tokens(draw: Draw, x: Tensor) -> Layer:
    return Layer(Net(lambda m, y: y.flatten(2).transpose(1, 2)), "tokens")


def _to_series(draw: Draw, x: Tensor) -> Layer:
    return Layer(nn.Flatten(2), "series")


def _series_to_tokens(draw: Draw, x: Tensor) -> Layer:
    return Layer(Net(lambda m, y: y.transpose(1, 2)), "tokens")


LAYERS: dict[str, tuple[Make, ...]] = {
    "map": (*MAPS, _to_tokens, _to_series),
    "series": (*SERIES, _series_to_tokens),
    "tokens": (*TOKENS, _series_to_tokens),
}


class Drawn(nn.Module):
    """Layers one behind the other, and what is made of the last value."""

    def __init__(self, layers: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), head

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        for layer in self.layers:
            x = layer(x)
        found: Tensor | tuple[Tensor, ...] = self.head(x)
        return found


def _head(draw: Draw, x: Tensor) -> nn.Module:
    flat = x.flatten(1).shape[1]
    return [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(flat, 5)),
        lambda: nn.Identity(),
        lambda: Net(
            lambda m, y: (m.one(y.flatten(2).mean(2)), m.two(y.flatten(1)).softmax(-1)),
            one=nn.Linear(x.shape[1], 3),
            two=nn.Linear(flat, 2),
        ),
    ][draw("head", [0, 0, 1, 2])]()


def draw_network(draw: Draw, depth: int, seed: int) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode with random weights, and its input [2, 3, 6, 6]."""
    torch.manual_seed(seed)
    x = inputs = torch.randn(2, 3, 6, 6)
    kind, layers = "map", []
    for _ in range(depth):
        makes = LAYERS[kind]
        made = makes[draw("layer", list(range(len(makes))))](draw, x)
        with torch.no_grad():
            x = made.module.eval()(x)
        layers.append(made.module)
        kind = made.kind
    return Drawn(layers, _head(draw, x)).eval(), inputs
