"""Small networks, each with one operator between two layers that every runtime has in int8."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.operators.networks import (
    Around,
    Attention,
    Branches,
    Embedded,
    First,
    Function,
    OwnAttention,
    SelfAttention,
    SqueezeExcite,
    Stored,
    Tied,
    Turned,
    TwoInputs,
    TwoOutputs,
    weight_normalized,
)

Make = Callable[[], nn.Module]

MAP = (4, 8, 8)
SERIES = (4, 16)
TOKENS = (6, 8)


@dataclass(frozen=True)
class OperatorCase:
    """An operator in a network around it.

    Attributes:
        family: kind of operator, for people.
        name: the operator.
        make: builds the network; seeded by who calls it.
        shapes: one per input, without the batch.
        ids: inputs are whole numbers below this instead of float32 noise; 0 for noise.
    """

    family: str
    name: str
    make: Make
    shapes: tuple[tuple[int, ...], ...]
    ids: int = 0

    def inputs(self, samples: int) -> tuple[Tensor, ...]:
        """Return random inputs, one tensor [samples, ...] each, always the same."""
        generator = torch.Generator().manual_seed(0)
        if self.ids:
            return tuple(
                torch.randint(self.ids, (samples, *s), generator=generator) for s in self.shapes
            )
        return tuple(torch.randn(samples, *s, generator=generator) for s in self.shapes)


def _on_map(operator: Function, channels: int = 4) -> Make:
    return lambda: Around(operator, nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(channels, 3, 1))


def _between_gates(operator: Function) -> Make:
    """Put sigmoids around it: arithmetic with a number would become part of the layers."""
    return _on_map(lambda x: torch.sigmoid(operator(torch.sigmoid(x))))


def _on_tokens(operator: Function, width: int = 8) -> Make:
    return lambda: Around(operator, nn.Linear(8, 8), nn.Linear(width, 3))


def _on_series(operator: Function, channels: int = 4) -> Make:
    return lambda: Around(operator, nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(channels, 3, 1))


def _map_layer(make: Make, channels: int = 4) -> Make:
    return lambda: _on_map(make(), channels)()


def _token_layer(make: Make, width: int = 8) -> Make:
    return lambda: _on_tokens(make(), width)()


def _joined(operator: Function, channels: int = 4) -> Make:
    return lambda: Branches(
        operator, nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(channels, 3, 1)
    )


def _trained_norm(norm: nn.Module) -> nn.Module:
    """Give a norm weights that are not trivial."""
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 1.5)
        for name, buffer in norm.named_buffers():
            if name.startswith("running"):
                buffer.uniform_(0.5, 1.5)
    return norm


def _layer_cases() -> list[OperatorCase]:
    layers: list[tuple[str, Make, int]] = [
        ("Conv2d", lambda: nn.Conv2d(4, 4, 3, padding=1), 4),
        ("Conv2d, strided", lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1), 4),
        ("Conv2d, dilated", lambda: nn.Conv2d(4, 4, 3, dilation=2), 4),
        ("Conv2d, 'same' padding", lambda: nn.Conv2d(4, 4, 3, padding="same"), 4),
        ("Conv2d, depthwise", lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), 4),
        ("Conv2d, grouped", lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), 4),
        ("ConvTranspose2d", lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1), 4),
        ("ConvTranspose2d, grouped", lambda: nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2), 4),
        ("squeeze-excite", SqueezeExcite, 4),
        ("tied weights", Tied, 4),
    ]
    cases = [OperatorCase("layer", n, _map_layer(m, c), (MAP,)) for n, m, c in layers]
    product = _token_layer(lambda: Stored(torch.matmul))
    einsum = _token_layer(lambda: Stored(lambda x, w: torch.einsum("btc,co->bto", x, w)))
    return [
        *cases,
        OperatorCase("layer", "Conv1d", lambda: nn.Conv1d(4, 3, 3), (SERIES,)),
        OperatorCase("layer", "Linear, [N, C]", lambda: nn.Linear(8, 3), ((8,),)),
        OperatorCase("layer", "Linear, [N, T, C]", lambda: nn.Linear(8, 3), (TOKENS,)),
        OperatorCase("layer", "Conv1d, weight norm", weight_normalized, (SERIES,)),
        OperatorCase(
            "layer", "ConvTranspose1d", _on_series(nn.ConvTranspose1d(4, 4, 2, 2)), (SERIES,)
        ),
        OperatorCase("layer", "product with a matrix", product, (TOKENS,)),
        OperatorCase("layer", "einsum with a matrix", einsum, (TOKENS,)),
        OperatorCase("layer", "tied weights, transposed", Turned, (TOKENS,)),
        OperatorCase("layer", "Embedding", Embedded, ((6,),), ids=20),
        OperatorCase("layer", "two inputs", TwoInputs, (MAP, (2, 8, 8))),
        OperatorCase("layer", "two outputs", TwoOutputs, (MAP,)),
    ]


def _activation_cases() -> list[OperatorCase]:
    functions: dict[str, Function] = {
        "ReLU": F.relu,
        "ReLU6": F.relu6,
        "Hardtanh": F.hardtanh,
        "LeakyReLU": F.leaky_relu,
        "ELU": F.elu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "SiLU": F.silu,
        "Hardswish": F.hardswish,
        "Hardsigmoid": F.hardsigmoid,
        "GELU": F.gelu,
        "GELU, tanh": lambda x: F.gelu(x, approximate="tanh"),
        "Softplus": F.softplus,
        "Mish": F.mish,
        "exp": lambda x: torch.exp(-x.abs()),
        "GLU": lambda x: F.glu(torch.cat([x, x], 1), 1),
        "SELU": F.selu,
        "Softsign": F.softsign,
        "hard swish, written out": lambda x: x * F.relu6(x + 3) / 6,
    }
    cases = [OperatorCase("activation", n, _on_map(f), (MAP,)) for n, f in functions.items()]
    prelu = _map_layer(lambda: nn.PReLU(4))
    return [*cases, OperatorCase("activation", "PReLU", prelu, (MAP,))]


def _norm_cases() -> list[OperatorCase]:
    maps: dict[str, Make] = {
        "BatchNorm2d, folded": lambda: nn.Sequential(
            nn.Conv2d(4, 4, 1), _trained_norm(nn.BatchNorm2d(4))
        ),
        "BatchNorm2d, alone": lambda: nn.Sequential(nn.ReLU(), _trained_norm(nn.BatchNorm2d(4))),
        "InstanceNorm2d": lambda: _trained_norm(nn.InstanceNorm2d(4, affine=True)),
        "GroupNorm": lambda: _trained_norm(nn.GroupNorm(2, 4)),
        "LocalResponseNorm": lambda: nn.LocalResponseNorm(3),
    }
    alone = _on_series(nn.Sequential(nn.ReLU(), _trained_norm(nn.BatchNorm1d(4))))
    tokens: dict[str, Make] = {
        "LayerNorm": lambda: _trained_norm(nn.LayerNorm(8)),
        "RMSNorm": lambda: _trained_norm(nn.RMSNorm(8)),
    }
    return [
        *(OperatorCase("norm", n, _map_layer(m), (MAP,)) for n, m in maps.items()),
        OperatorCase("norm", "BatchNorm1d, alone", alone, (SERIES,)),
        *(OperatorCase("norm", n, _token_layer(m), (TOKENS,)) for n, m in tokens.items()),
    ]


def _arithmetic_cases() -> list[OperatorCase]:
    pairs: dict[str, Function] = {
        "add": torch.add,
        "sub": torch.sub,
        "mul": torch.mul,
        "div": lambda x, y: x / (1 + y.abs()),
        "maximum": torch.maximum,
    }
    cases = [OperatorCase("arithmetic", n, _joined(f), (MAP,)) for n, f in pairs.items()]
    concat = _joined(lambda x, y: torch.cat([x, y], 1), 8)
    tokens: dict[str, Make] = {
        "softmax": _on_tokens(lambda x: torch.softmax(x, -1)),
        "matmul of two activations": _on_tokens(lambda x: x @ x.transpose(1, 2), 6),
        "scaled_dot_product_attention": _token_layer(Attention),
        "attention behind a mask": _token_layer(lambda: Attention(causal=True)),
        "attention, written out with einsum": _token_layer(OwnAttention),
        "MultiheadAttention": _token_layer(SelfAttention),
    }
    scalars: dict[str, Function] = {
        "scalar mul and add": lambda x: x * 0.25 + 1.0,
        "division by a number": lambda x: x / 4,
        "1 - x": lambda x: 1 - x,
        "square": torch.square,
    }
    return [
        *cases,
        *(OperatorCase("arithmetic", n, _between_gates(f), (MAP,)) for n, f in scalars.items()),
        *(OperatorCase("arithmetic", n, m, (TOKENS,)) for n, m in tokens.items()),
        OperatorCase("movement", "cat", concat, (MAP,)),
    ]


def _movement_cases() -> list[OperatorCase]:
    functions: dict[str, tuple[Function, int]] = {
        "split": (lambda x: torch.cat(tuple(reversed(x.split(2, 1))), 1), 4),
        "chunk": (lambda x: torch.cat(tuple(reversed(x.chunk(2, 1))), 1), 4),
        "slice": (lambda x: x[:, 1:3], 2),
        "stack": (lambda x: torch.stack([x, x], 2).flatten(1, 2), 8),
        "roll": (lambda x: x.roll((1, 2), (2, 3)), 4),
        "flip": (lambda x: x.flip(3), 4),
        "repeat": (lambda x: x.repeat(1, 2, 1, 1), 8),
        "repeat_interleave": (lambda x: x.repeat_interleave(2, 2), 4),
        "index by a list": (lambda x: x[:, [2, 0, 3]], 3),
        "unflatten and movedim": (
            lambda x: x.unflatten(1, (2, 2)).movedim(1, 2).flatten(1, 2),
            4,
        ),
        "channel shuffle": (lambda x: F.channel_shuffle(x, 2), 4),
        "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), 1),
        "pad with zeros": (lambda x: F.pad(x, (1, 1, 1, 1)), 4),
        "pad, reflected": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 4),
        "resize, nearest": (lambda x: F.interpolate(x, scale_factor=2.0), 4),
        "resize, bilinear": (
            lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False),
            4,
        ),
    }
    cases = [OperatorCase("movement", n, _on_map(f, c), (MAP,)) for n, (f, c) in functions.items()]
    flat = lambda: nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(72, 3))  # noqa: E731
    return [*cases, OperatorCase("movement", "flatten", flat, (MAP,))]


def _pooling_cases() -> list[OperatorCase]:
    functions: dict[str, Function] = {
        "MaxPool2d": lambda x: F.max_pool2d(x, 2),
        "AvgPool2d": lambda x: F.avg_pool2d(x, 2),
        "AvgPool2d, padded": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        "AdaptiveAvgPool2d(1)": lambda x: F.adaptive_avg_pool2d(x, 1),
        "AdaptiveAvgPool2d(2)": lambda x: F.adaptive_avg_pool2d(x, 2),
        "mean over height and width": lambda x: x.mean((2, 3), keepdim=True),
        "amax over height and width": lambda x: x.amax((2, 3), keepdim=True),
        "sum over height and width": lambda x: x.sum((2, 3), keepdim=True),
        "AdaptiveMaxPool2d(1)": lambda x: F.adaptive_max_pool2d(x, 1),
    }
    series: dict[str, Function] = {
        "MaxPool1d": lambda x: F.max_pool1d(x, 2),
        "AvgPool1d": lambda x: F.avg_pool1d(x, 2),
        "AdaptiveAvgPool1d(1)": lambda x: F.adaptive_avg_pool1d(x, 1),
        "max along an axis": lambda x: x.max(2, keepdim=True)[0],
    }
    return [
        *(OperatorCase("pooling", n, _on_map(f), (MAP,)) for n, f in functions.items()),
        *(OperatorCase("pooling", n, _on_series(f), (SERIES,)) for n, f in series.items()),
    ]


def _recurrent_cases() -> list[OperatorCase]:
    layers: dict[str, Make] = {
        "LSTM": lambda: nn.LSTM(8, 8, batch_first=True),
        "GRU": lambda: nn.GRU(8, 8, batch_first=True),
        "RNN": lambda: nn.RNN(8, 8, batch_first=True),
    }

    def around(make: Make) -> Make:
        return lambda: nn.Sequential(First(make()), nn.Linear(8, 3))

    return [OperatorCase("recurrent", n, around(m), (TOKENS,)) for n, m in layers.items()]


def operator_cases() -> list[OperatorCase]:
    """Return every case, by family."""
    return [
        *_layer_cases(),
        *_activation_cases(),
        *_norm_cases(),
        *_arithmetic_cases(),
        *_movement_cases(),
        *_pooling_cases(),
        *_recurrent_cases(),
    ]
