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
        attention,
        own_attention,
        shared_heads,
    )
}


def make(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a network with seeded weights, in evaluation mode, and its input."""
    torch.manual_seed(3)
    return NETWORKS[name]().eval(), (noise(*PICTURE),)
