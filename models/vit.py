"""Vision Transformer: the encoder of a Transformer on patches of a picture.

Source: Dosovitskiy et al., "An image is worth 16x16 words: Transformers for image recognition at
scale", 2020 (arXiv:2010.11929), section 3.1 (network; "hybrid architecture" for the convolutions in
front), table 1 (sizes), appendix D.3 (the mean of all tokens instead of a class token); Xiao et
al., "Early convolutions help Transformers see better", 2021 (arXiv:2106.14881), section 3 (stem).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.models.attention import Attention

_EPSILON = 1e-6


class EncoderLayer(nn.Module):
    """Attention and a two-layer network with GELU, each behind a layer norm and with a shortcut."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        """Build a layer of ``width`` whose inner network has ``feed_forward`` units."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.expand = nn.Linear(width, feed_forward)
        self.contract = nn.Linear(feed_forward, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, L, W] to the same shape (equations 2 and 3)."""
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.contract(F.gelu(self.expand(self.norm(x))))
        return y


class VisionTransformer(nn.Module):
    """Patches, positions, encoder layers, the mean of all tokens, one linear layer.

    The defaults are ViT-B/16: [N, 3, 224, 224] -> patches [N, 196, 768] -> [N, 768] -> [N, K].
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1000,
        image_size: int = 224,
        patch: int = 16,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        feed_forward: int = 3072,
        stem: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """Build the network.

        Args:
            in_channels: of the picture.
            classes: number of outputs.
            image_size: height and width of the picture.
            patch: height and width of a patch of what the stem gives.
            width: of every token, a multiple of ``heads``.
            layers: number of encoder layers.
            heads: of the attention.
            feed_forward: units inside an encoder layer.
            stem: channels and stride of the 3x3 convolutions in front; none takes patches of the
                picture itself.
        """
        super().__init__()
        convolutions: list[nn.Module] = []
        channels, size = in_channels, image_size
        for stem_channels, stride in stem:
            convolutions += [
                nn.Conv2d(channels, stem_channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(stem_channels),
                nn.ReLU(),
            ]
            channels, size = stem_channels, -(-size // stride)
        self.stem = nn.Sequential(*convolutions)
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2, width))
        self.layers = nn.Sequential(
            *(EncoderLayer(width, heads, feed_forward) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 [N, C, H, W], 0..1, to logits float32 [N, classes]."""
        tokens = self.patches(self.stem(x)).flatten(2).transpose(1, 2)
        encoded = self.norm(self.layers(tokens + self.positions))
        logits: Tensor = self.head(encoded.mean(1))
        return logits
