"""Small networks whose channels hang together in every way that pruning follows."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from small_networks import Net, noise, trained
from torch import Tensor, nn

PICTURE = (2, 3, 8, 8)


def _norm(channels: int) -> nn.Module:
    return trained(nn.BatchNorm2d(channels))


def residual() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        x = F.relu(m.norm(m.stem(x)))
        y = m.second_norm(m.second(F.relu(m.first_norm(m.first(x)))))
        return m.head((x + y).relu().mean((2, 3)))

    return Net(
        forward,
        stem=nn.Conv2d(3, 8, 3, padding=1),
        norm=_norm(8),
        first=nn.Conv2d(8, 6, 3, padding=1),
        first_norm=_norm(6),
        second=nn.Conv2d(6, 8, 3, padding=1, bias=False),
        second_norm=_norm(8),
        head=nn.Linear(8, 5),
    )


def concatenated() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        a, b = F.relu(m.left(x)), F.relu(m.right(x))
        joined = m.norm(torch.cat([a, b, a], 1))
        return m.head(F.max_pool2d(joined, 2).flatten(1))

    return Net(
        forward,
        left=nn.Conv2d(3, 4, 3, padding=1),
        right=nn.Conv2d(3, 6, 1),
        norm=_norm(14),
        head=nn.Linear(14 * 16, 5),
    )


def depthwise() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = F.relu6(m.depth_norm(m.depth(F.relu6(m.wide(x)))))
        gate = torch.sigmoid(m.grow(F.relu(m.shrink(y.mean((2, 3), keepdim=True)))))
        return m.head(m.narrow(y * gate).mean((2, 3)))

    return Net(
        forward,
        wide=nn.Conv2d(3, 8, 1),
        depth=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        depth_norm=_norm(8),
        shrink=nn.Conv2d(8, 4, 1),
        grow=nn.Conv2d(4, 8, 1),
        narrow=nn.Conv2d(8, 6, 1),
        head=nn.Linear(6, 5),
    )


def grouped() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = F.relu(m.grouped(F.relu(m.wide(x))))
        batch, _, height, width = y.shape
        shuffled = y.view(batch, 4, 3, height, width).transpose(1, 2).reshape(y.shape)
        return m.head(m.second(shuffled).mean((2, 3)))

    return Net(
        forward,
        wide=nn.Conv2d(3, 8, 1),
        grouped=nn.Conv2d(8, 12, 3, padding=1, groups=4),
        second=nn.Conv2d(12, 6, 3, padding=1, groups=3),
        head=nn.Linear(6, 5),
    )


def sequence() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(m.second(m.first(x.flatten(2)).relu()).relu().mean(2))

    return Net(
        forward,
        first=nn.Conv1d(3, 12, 3, padding="same"),
        second=nn.Conv1d(12, 8, 4, padding="same"),
        head=nn.Linear(8, 5),
    )


def tied() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = F.relu(m.block(F.relu(m.block(F.relu(m.stem(x))))))
        return m.head(y.mean((2, 3)))

    return Net(
        forward,
        stem=nn.Conv2d(3, 8, 1),
        block=nn.Conv2d(8, 8, 3, padding=1),
        head=nn.Linear(8, 5),
    )


def upsampled() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        first, second = m.split(x).chunk(2, 1)
        grown = m.up(F.relu(first) * F.silu(second))
        shortcut = F.pad(x, (0, 0, 0, 0, 1, 2))
        return m.head((m.back(grown) + shortcut)[:, 1:4].flatten(1))

    return Net(
        forward,
        split=nn.Conv2d(3, 12, 1),
        up=nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2),
        back=nn.Conv2d(4, 6, 2, stride=2),
        head=nn.Linear(3 * 64, 5),
    )


def stretched() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(F.relu(m.second(F.interpolate(m.first(x.flatten(2)), None, 2.0))).mean(2))

    return Net(
        forward,
        first=nn.Conv1d(3, 8, 3, padding=1),
        second=nn.Conv1d(8, 6, 3, padding=1),
        head=nn.Linear(6, 5),
    )


def attention() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.embed(x.flatten(2).transpose(1, 2))
        batch, length, _ = tokens.shape
        q, k, v = m.qkv(tokens).view(batch, length, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, 24)
        tokens = tokens + m.out(y)
        tokens = tokens + m.contract(F.gelu(m.expand(tokens)))
        return m.head(tokens.mean(1))

    return Net(
        forward,
        embed=nn.Linear(3, 16),
        qkv=nn.Linear(16, 72),
        out=nn.Linear(24, 16),
        expand=nn.Linear(16, 32),
        contract=nn.Linear(32, 16),
        head=nn.Linear(16, 5),
    )


def own_attention() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.embed(x.flatten(2).transpose(1, 2))

        def heads(y: Tensor) -> Tensor:
            return y.unflatten(-1, (4, 6)).transpose(1, 2)

        scores = heads(m.query(tokens)) @ heads(m.key(tokens)).transpose(-1, -2)
        y = (scores / 6**0.5).softmax(-1) @ heads(m.value(tokens))
        return m.head((tokens + m.out(y.transpose(1, 2).flatten(2))).mean(1))

    return Net(
        forward,
        embed=nn.Linear(3, 16),
        query=nn.Linear(16, 24),
        key=nn.Linear(16, 24),
        value=nn.Linear(16, 24),
        out=nn.Linear(24, 16),
        head=nn.Linear(16, 5),
    )


def shared_heads() -> nn.Module:
    """Two heads of queries to each of keys and values."""

    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.embed(x.flatten(2).transpose(1, 2))

        def heads(y: Tensor, count: int) -> Tensor:
            return y.unflatten(-1, (count, 6)).transpose(1, 2)

        query, key = heads(m.query(tokens), 8), heads(m.key(tokens), 4)
        value = heads(m.value(tokens), 4)
        y = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        return m.head((tokens + m.out(y.transpose(1, 2).flatten(2))).mean(1))

    return Net(
        forward,
        embed=nn.Linear(3, 16),
        query=nn.Linear(16, 48),
        key=nn.Linear(16, 24),
        value=nn.Linear(16, 24),
        out=nn.Linear(48, 16),
        head=nn.Linear(16, 5),
    )


def multihead() -> nn.Module:
    """Heads that are folded into the batch, which stands second."""

    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.embed(x.flatten(2).transpose(1, 2))
        seen = m.inside(tokens, tokens, tokens, need_weights=False)[0]
        return m.head((tokens + seen).relu().mean(1))

    return Net(
        forward,
        embed=nn.Linear(3, 24),
        inside=nn.MultiheadAttention(24, 4, batch_first=True),
        head=nn.Linear(24, 5),
    )


def weighing_heads() -> nn.Module:
    """The same with the attention's weights as a second result, and with other keys."""

    def forward(m: Net, x: Tensor) -> Tensor:
        tokens = m.embed(x.flatten(2).permute(2, 0, 1))
        seen, weights = m.inside(tokens, tokens[:9], tokens[:9])
        return m.head((tokens + seen).relu().mean(0)) + weights.sum((1, 2))[:, None]

    return Net(
        forward,
        embed=nn.Linear(3, 24),
        inside=nn.MultiheadAttention(24, 4),
        head=nn.Linear(24, 5),
    )


def shuffled() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = F.channel_shuffle(m.slope(m.wide(x)), 4)
        y = F.pixel_shuffle(m.deep(y), 2)
        y = F.pixel_unshuffle(F.glu(m.gates(y), 1), 2)
        return m.head(m.last(y).amin((2, 3)))

    return Net(
        forward,
        wide=nn.Conv2d(3, 16, 1),
        slope=nn.PReLU(16, 0.1),
        deep=nn.Conv2d(16, 24, 1),
        gates=nn.Conv2d(6, 12, 1),
        last=nn.Conv2d(24, 8, 1),
        head=nn.Linear(8, 5),
    )


def rearranged() -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        y = m.norm(m.first(x)).flip(2).swapaxes(2, 3)
        y = m.second(torch.stack([y, y.roll(1, 3), y.cumsum(2)]).max(0)[0])
        gate = torch.einsum("nchw,oc->nohw", y, m.mix.weight).logsumexp((2, 3), keepdim=True)
        y = torch.addcmul(y, y, gate.sin().expand_as(y)).movedim(1, -1).repeat(1, 1, 2, 1)
        wide = torch.addmm(x.mean((1, 2, 3))[:, None], y.mean((1, 2)), m.turned.weight.T)
        return m.head(wide)

    return Net(
        forward,
        first=nn.Conv2d(3, 8, 1),
        norm=trained(nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        second=nn.Conv2d(8, 6, 1),
        mix=nn.Linear(6, 6, bias=False),
        turned=nn.Linear(6, 12, bias=False),
        head=nn.Linear(12, 5),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f
    for f in (
        residual,
        concatenated,
        depthwise,
        grouped,
        sequence,
        tied,
        upsampled,
        stretched,
        attention,
        own_attention,
        shared_heads,
        multihead,
        weighing_heads,
        shuffled,
        rearranged,
    )
}


def make(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a network with seeded weights, in evaluation mode, and its input."""
    torch.manual_seed(3)
    return NETWORKS[name]().eval(), (noise(*PICTURE),)
