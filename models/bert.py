"""BERT, the encoder of a Transformer, and the sentence encoder that is made of it.

Source: Devlin, Chang, Lee, Toutanova, "BERT: pre-training of deep bidirectional transformers for
language understanding", 2019 (arXiv:1810.04805), section 3 and figure 2; Vaswani et al.,
"Attention is all you need", 2017 (arXiv:1706.03762), section 3; Reimers, Gurevych, "Sentence-BERT",
2019 (arXiv:1908.10084), section 3 (mean pooling); Wang et al., "MiniLM", 2020 (arXiv:2002.10957).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.models.attention import Attention

_EPSILON = 1e-12


class EncoderLayer(nn.Module):
    """Attention and a two-layer network with GELU, each with a shortcut and a layer norm behind."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        """Build a layer of ``width`` whose inner network has ``feed_forward`` units."""
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.expand = nn.Linear(width, feed_forward)
        self.activation = nn.GELU()
        self.contract = nn.Linear(feed_forward, width)
        self.output_norm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Map [N, L, W] to the same shape."""
        x = self.attention_norm(x + self.attention(x, visible))
        y: Tensor = self.output_norm(x + self.contract(self.activation(self.expand(x))))
        return y


class Bert(nn.Module):
    """Embeddings of words, positions and segments, then encoder layers.

    The defaults are BERT-base; inputs are of one segment.
    """

    def __init__(
        self,
        vocabulary: int = 30522,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        feed_forward: int = 3072,
        positions: int = 512,
    ) -> None:
        """Build the network.

        Args:
            vocabulary: number of word pieces.
            width: of every token's vector, a multiple of ``heads``.
            layers: number of encoder layers.
            heads: of the attention.
            feed_forward: units inside an encoder layer.
            positions: most tokens of an input.
        """
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feed_forward) for _ in range(layers))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map word pieces int64 [N, L] to vectors float32 [N, L, W].

        ``mask``, int64 [N, L], is 1 where there is a word piece and 0 where there is padding.
        """
        position = self.positions.weight[: ids.shape[1]] + self.segments.weight[0]
        x: Tensor = self.norm(self.words(ids) + position)
        visible = mask[:, None, None, :] != 0
        for layer in self.layers:
            x = layer(x, visible)
        return x


class SentenceEncoder(Bert):
    """The mean of a sentence's vectors, scaled to length 1."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map word pieces int64 [N, L] and their mask int64 [N, L] to float32 [N, W]."""
        weight = mask.unsqueeze(-1).float()
        mean = (super().forward(ids, mask) * weight).sum(1) / weight.sum(1)
        return F.normalize(mean, dim=1)


def rename_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a published BERT checkpoint under the names used here.

    What only pre-training needs (the pooler, the heads) is dropped.

    >>> list(rename_published({"encoder.layer.0.output.dense.bias": torch.zeros(1)}))
    ['layers.0.contract.bias']
    """
    renamed = {}
    for name, value in tensors.items():
        for theirs, ours in _PUBLISHED_NAMES:
            name = name.replace(theirs, ours)
        if name.split(".")[0] in ("layers", "words", "positions", "segments", "norm"):
            renamed[name] = value
    return renamed


# In this order: "output.dense" stands inside "attention.output.dense".
_PUBLISHED_NAMES = (
    ("bert.", ""),
    ("encoder.layer.", "layers."),
    ("attention.self.", "attention."),
    ("attention.output.dense", "attention.projection"),
    ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "expand"),
    ("output.dense", "contract"),
    ("output.LayerNorm", "output_norm"),
    ("embeddings.LayerNorm", "norm"),
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "segments"),
)
