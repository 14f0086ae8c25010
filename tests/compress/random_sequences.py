"""Layers of series [N, C, T] and of tokens [N, T, C] for networks that are drawn at random."""

import torch
import torch.nn.functional as F
from random_maps import Draw, Layer, Make
from small_networks import Net
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


def _series(draw: Draw, x: Tensor) -> Layer:
    channels, width = x.shape[1], draw("width", [4, 6, 8])
    made = [
        lambda: nn.Conv1d(channels, width, 3, padding=2, dilation=2),
        lambda: nn.ConvTranspose1d(channels, width, 4, 2, 1),
        lambda: weight_norm(nn.Conv1d(channels, width, 3, padding=1)),
        lambda: spectral_norm(nn.Conv1d(channels, width, 1)),
        lambda: nn.Sequential(
            nn.Conv1d(channels, 6, 3, 2, 1), nn.ConvTranspose1d(6, 4, 2, 2, groups=2)
        ),
    ][draw("series", [0, 1, 2, 3, 4])]()
    return Layer(nn.Sequential(made, nn.ReLU()), "series")


def _tokens(module: nn.Module) -> Layer:
    return Layer(module, "tokens")


def _perceptron(draw: Draw, x: Tensor) -> Layer:
    width = x.shape[2]
    return _tokens(
        Net(
            lambda m, y: y + m.narrow(F.gelu(m.wide(m.norm(y)))),
            norm=[nn.LayerNorm, nn.RMSNorm][draw("norm", [0, 1])](width),
            wide=nn.Linear(width, 2 * width),
            narrow=nn.Linear(2 * width, width),
        )
    )


def _embedded(draw: Draw, x: Tensor) -> Layer:
    return _tokens(nn.Sequential(nn.Linear(x.shape[2], draw("heads", [8, 12])), nn.ReLU()))


def _attention(draw: Draw, x: Tensor) -> Layer:
    length = x.shape[1]

    def fused(m: Net, y: Tensor) -> Tensor:
        n = y.shape[0]
        q, k, v = m.qkv(m.embed(y)).view(n, length, 3, 2, 6).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v)
        return m.out(seen.transpose(1, 2).reshape(n, length, 12))

    def own(m: Net, y: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (2, 6)).transpose(1, 2) for z in m.qkv(m.embed(y)).chunk(3, -1))
        scores = (q @ k.transpose(-1, -2) / 6**0.5).softmax(-1)
        return m.out((scores @ v).transpose(1, 2).flatten(2))

    def layer(m: Net, y: Tensor) -> Tensor:
        y = m.embed(y)
        return m.out(y + m.inside(y, y, y, need_weights=False)[0])

    way = [fused, own, layer][draw("attention", [0, 1, 2])]
    return _tokens(
        Net(
            way,
            embed=nn.Linear(x.shape[2], 12),
            qkv=nn.Linear(12, 36),
            inside=nn.MultiheadAttention(12, 2, batch_first=True),
            out=nn.Linear(12, 8),
        )
    )


def _mixing_tokens(draw: Draw, x: Tensor) -> Layer:
    """Operators that take the tokens for channels, or the channels for places."""
    _, length, width = x.shape

    def convolved(m: Net, y: Tensor) -> Tensor:
        return m.conv(y)

    def pooled(m: Net, y: Tensor) -> Tensor:
        return F.avg_pool1d(y, 2)

    def mixed(m: Net, y: Tensor) -> Tensor:
        return y + m.across(y.transpose(1, 2)).transpose(1, 2)

    def unit(m: Net, y: Tensor) -> Tensor:
        return F.normalize(y, dim=-1)

    def placed(m: Net, y: Tensor) -> Tensor:
        return y + m.places

    def begun(m: Net, y: Tensor) -> Tensor:
        return torch.cat([m.places[:1].expand(y.shape[0], 1, -1), y], 1)

    def normed(m: Net, y: Tensor) -> Tensor:
        return m.norm(y)

    ways = [convolved, pooled, mixed, unit, placed, begun, normed]
    net = Net(
        ways[draw("mixing", list(range(len(ways))))],
        conv=nn.Conv1d(length, 5, 3, padding=1),
        across=nn.Linear(length, length),
        norm=nn.InstanceNorm1d(length, affine=True),
    )
    net.places = nn.Parameter(torch.randn(length, width))
    return _tokens(net)


def _stepping(draw: Draw, x: Tensor) -> Layer:
    kind = [nn.LSTM, nn.GRU, nn.RNN][draw("cell", [0, 1, 2])]
    both, layers = bool(draw("both", [0, 1])), draw("layers", [1, 2])
    steps = kind(x.shape[2], 6, layers, bidirectional=both, batch_first=True)
    last = bool(draw("last", [0, 1]))

    def forward(m: Net, y: Tensor) -> Tensor:
        out, state = m.steps(y)
        state = state[0] if isinstance(state, tuple) else state
        return out + state[-1].repeat(1, 2 if both else 1)[:, None] if last else out

    return _tokens(Net(forward, steps=steps))


SERIES: tuple[Make, ...] = (_series, _series, _series)
TOKENS: tuple[Make, ...] = (
    _perceptron, _embedded, _attention, _mixing_tokens, _mixing_tokens, _stepping,
)  # fmt: skip
