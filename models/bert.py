"""BERT, the encoder of a Transformer, and what is made of it: sentence encoder, text classifier.

Source: Devlin, Chang, Lee, Toutanova, "BERT: pre-training of deep bidirectional transformers for
language understanding", 2019 (arXiv:1810.04805), section 3 and figure 2; Vaswani et al.,
"Attention is all you need", 2017 (arXiv:1706.03762), section 3; Reimers, Gurevych, "Sentence-BERT",
2019 (arXiv:1908.10084), section 3 (mean pooling); Wang et al., "MiniLM", 2020 (arXiv:2002.10957).
"""

import torch
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
        return F.normalize(_mean(super().forward(ids, mask), mask), dim=1)


class TextClassifier(Bert):
    """The mean of a text's vectors, and a linear layer on it."""

    def __init__(
        self,
        vocabulary: int,
        classes: int,
        positions: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int = 256,
        dropout: float = 0.1,
    ) -> None:
        """Build the network with small embeddings.

        Args:
            vocabulary: number of words.
            classes: number of outputs.
            positions: most words of a text.
            width: of every word's vector, a multiple of ``heads``.
            layers: number of encoder layers.
            heads: of the attention.
            feed_forward: units inside an encoder layer.
            dropout: of the mean, in training.
        """
        super().__init__(vocabulary, width, layers, heads, feed_forward, positions)
        for table in (self.words, self.positions, self.segments):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, classes)

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map words int64 [N, L] and their mask int64 [N, L] to vectors float32 [N, L, W]."""
        return super().forward(ids, mask)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map words int64 [N, L] and their mask int64 [N, L] to logits float32 [N, classes]."""
        logits: Tensor = self.fc(self.dropout(_mean(self.encode(ids, mask), mask)))
        return logits


class MaskedWords(nn.Module):
    """A network that tells hidden words from what is around them, for pre-training its encoder.

    The table that turns words into vectors turns vectors into words, too.

    Source: Devlin et al. 2019, section 3.1, task 1.
    """

    def __init__(self, encoder: TextClassifier) -> None:
        """Put a head with fresh weights on an encoder, which is trained in place."""
        super().__init__()
        width = encoder.words.embedding_dim
        self.encoder = encoder
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.bias = nn.Parameter(torch.zeros(encoder.words.num_embeddings))

    def forward(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Return the logits of the words at some places.

        Args:
            ids: words, some of them hidden, int64 [N, L].
            mask: 1 where there is a word, int64 [N, L].
            places: of the words to tell, int64 [N, M].

        Returns:
            float32 [N, M, vocabulary].
        """
        x = self.encoder.encode(ids, mask)
        x = x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        x = self.norm(F.gelu(self.transform(x)))
        return F.linear(x, self.encoder.words.weight, self.bias)


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [N, W] of the vectors [N, L, W] whose mask [N, L] is 1."""
    weight = mask.unsqueeze(-1).float()
    return (x * weight).sum(1) / weight.sum(1)


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
