"""The small networks around an operator."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[..., Any]


class Around(nn.Module):
    """layer -> operator -> layer, for the maps of a picture, a series, or tokens."""

    def __init__(self, operator: Function, before: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.operator = operator

    def forward(self, x: Tensor) -> Any:
        return self.after(self.operator(self.before(x)))


class Branches(nn.Module):
    """Two layers on one input, an operator on both, a layer behind it."""

    def __init__(
        self, operator: Function, left: nn.Module, right: nn.Module, after: nn.Module
    ) -> None:
        super().__init__()
        self.left, self.right, self.after = left, right, after
        self.operator = operator

    def forward(self, x: Tensor) -> Any:
        return self.after(self.operator(F.relu(self.left(x)), self.right(x)))


class Attention(nn.Module):
    """Two heads of attention as transformers write it."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(-1, 6, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o(mixed.transpose(1, 2).reshape(-1, 6, 8))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """A gate per channel, from the mean of its map."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class Tied(nn.Module):
    """One convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.relu(self.layer(x)))  # type: ignore[no-any-return]


class Embedded(nn.Module):
    """Ids of words, looked up and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.after = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.after(self.table(ids))  # type: ignore[no-any-return]


class First(nn.Module):
    """The sequence of outputs of a recurrent layer, without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]  # type: ignore[no-any-return]


class TwoOutputs(nn.Module):
    """One input, two outputs of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 3, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(x), self.right(x)


class TwoInputs(nn.Module):
    """Two inputs of different shapes, one output."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 3, 3), nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.relu(self.left(x) + self.right(y))


class Turned(nn.Module):
    """An autoencoder whose second layer has the first one's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.encode(x))
        return self.out(F.linear(hidden, self.encode.weight.t()))  # type: ignore[no-any-return]


class Stored(nn.Module):
    """A product with a matrix of the network's own."""

    def __init__(self, product: Function) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 8) / 8**0.5)
        self.product = product

    def forward(self, x: Tensor) -> Any:
        return self.product(x, self.matrix)


class OwnAttention(nn.Module):
    """Two heads of attention, written out with einsum and a division of the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 4)) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        return self.o(mixed.flatten(2))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """torch's own layer of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


def weight_normalized() -> nn.Module:
    """Return a convolution whose weight is normalized at every call."""
    layer = nn.Conv1d(4, 3, 3)
    nn.utils.parametrizations.weight_norm(layer)
    return layer
