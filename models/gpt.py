"""GPT, the decoder of a Transformer, which predicts the next token; with a key-value cache.

Source: Radford, Narasimhan, Salimans, Sutskever, "Improving language understanding by generative
pre-training", 2018, section 3.1 (network) and 4.1 (learned positions, GELU); Radford et al.,
"Language models are unsupervised multitask learners", 2019, section 2.3 (layer norms in front of
each block, and behind the last).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedl.runtime.bundle.state import State


class DecoderLayer(nn.Module):
    """Attention to earlier tokens and a two-layer network, each behind a norm, with a shortcut."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        """Build a layer of ``width`` whose inner network has ``feed_forward`` units."""
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.projection = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feed_forward)
        self.contract = nn.Linear(feed_forward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, visible: Tensor | None, keys: Tensor | None, values: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map tokens [N, T, W] to the same shape; return the keys and values to keep, too.

        Args:
            x: the new tokens.
            visible: bool [N, 1, T, C], which kept position each new token sees; None where the new
                tokens are all there are, and each sees those before it.
            keys: of the tokens before, [N, C, W], the newest last; None if there are none.
            values: of the same tokens, [N, C, W].

        Returns:
            Tokens [N, T, W], keys and values [N, C, W].
        """
        y = self.attention_norm(x)
        query, key, value = self.query(y), self.key(y), self.value(y)
        if keys is not None and values is not None:
            # The oldest go, so the shape stays.
            key = torch.cat([keys[:, x.shape[1] :], key], 1)
            value = torch.cat([values[:, x.shape[1] :], value], 1)
        attended = F.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value),
            visible, is_causal=visible is None,
        )  # fmt: skip
        x = x + self.dropout(self.projection(attended.transpose(1, 2).flatten(2)))
        x = x + self.dropout(self.contract(F.gelu(self.expand(self.norm(x)))))
        return x, key, value

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return split


class Gpt(nn.Module):
    """Embeddings of tokens and positions, decoder layers, one linear layer to the next token.

    The defaults are the network of 2018.
    """

    def __init__(
        self,
        vocabulary: int = 40478,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        feed_forward: int = 3072,
        context: int = 512,
        dropout: float = 0.1,
    ) -> None:
        """Build the network.

        Args:
            vocabulary: number of tokens.
            width: of every token's vector, a multiple of ``heads``.
            layers: number of decoder layers.
            heads: of the attention.
            feed_forward: units inside a decoder layer.
            context: most tokens that are seen at once.
            dropout: share of a layer's values that training leaves out.
        """
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, feed_forward, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for weight in (self.tokens.weight, self.positions.weight):
            nn.init.normal_(weight, std=0.02)

    def forward(
        self,
        tokens: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Predict the token that follows each one.

        Args:
            tokens: int64 [N, T]; with those seen before at most the context.
            keys: of the tokens before, float32 [N, layers, context, W], the newest last.
            values: of the same tokens and shape.
            seen: how many tokens came before, float32 [N, 1].

        Returns:
            Logits float32 [N, T, vocabulary]. Where keys, values and ``seen`` are given, also what
            they are after these tokens, as ``next_keys``, ``next_values`` and ``next_seen``. All
            are zero before the first token.
        """
        if keys is None or values is None or seen is None:
            x: Tensor = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
            for layer in self.layers:
                x, _, _ = layer(x, None, None, None)
            logits: Tensor = self.head(self.norm(x))
            return logits
        position = seen.long() + torch.arange(tokens.shape[1])
        x = self.tokens(tokens) + self.positions(position)
        visible = self._visible(tokens.shape[1], seen)
        kept_keys, kept_values = [], []
        for index, layer in enumerate(self.layers):
            x, key, value = layer(x, visible, keys[:, index], values[:, index])
            kept_keys.append(key)
            kept_values.append(value)
        return {
            "logits": self.head(self.norm(x)),
            "next_keys": torch.stack(kept_keys, 1),
            "next_values": torch.stack(kept_values, 1),
            "next_seen": seen + tokens.shape[1],
        }

    def state(self) -> tuple[State, ...]:
        """Return what the network keeps from token to token."""
        kept = (len(self.layers), self.context, self.tokens.embedding_dim)
        return (
            State("keys", "next_keys", kept),
            State("values", "next_values", kept),
            State("seen", "next_seen", (1,)),
        )

    def _visible(self, count: int, seen: Tensor) -> Tensor:
        """Return which kept position each of ``count`` new tokens sees: bool [N, 1, count, C]."""
        column = torch.arange(self.context)
        visible = (column + seen >= self.context - count)[:, None, None, :]
        if count == 1:
            return visible
        row = torch.arange(count)[:, None]
        return visible & (column <= self.context - count + row)
