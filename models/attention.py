"""Multi-head self-attention, the part that all Transformers share.

Source: Vaswani et al., "Attention is all you need", 2017 (arXiv:1706.03762), section 3.2.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention with its projections (section 3.2.2)."""

    def __init__(self, width: int, heads: int) -> None:
        """Build four linear layers of ``width``; every head sees ``width / heads`` of it."""
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Map [N, L, W] to the same shape.

        ``visible``, bool and broadcast to [N, heads, L, L], says which positions (last axis) each
        position sees; without it every one sees all.
        """
        batch, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        y = F.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x)), visible
        )
        joined: Tensor = self.projection(y.transpose(1, 2).reshape(batch, length, width))
        return joined
