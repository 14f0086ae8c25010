"""The encoder against torch's own encoder layers, and what padding must not change."""

import torch
from torch import Tensor, nn

from edgedl.models.bert import (
    Bert,
    MaskedWords,
    SentenceEncoder,
    TextClassifier,
    rename_published,
)

WIDTH, HEADS, INNER = 12, 3, 20


def small(architecture: type[Bert]) -> Bert:
    torch.manual_seed(0)
    net = architecture(
        vocabulary=50, width=WIDTH, layers=2, heads=HEADS, feed_forward=INNER, positions=16
    )
    return net.eval()


def sentences() -> tuple[Tensor, Tensor]:
    """Return ids and mask of two sentences, of 7 and of 4 word pieces."""
    ids = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    return ids, mask


def torchs_own(net: Bert, layer: nn.Module) -> nn.TransformerEncoderLayer:
    """Return torch's encoder layer with the weights of one of ours."""
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, INNER, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    attention = layer.attention
    inputs = (attention.query, attention.key, attention.value)
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in inputs]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in inputs]),
            "self_attn.out_proj.weight": attention.projection.weight,
            "self_attn.out_proj.bias": attention.projection.bias,
            "linear1.weight": layer.expand.weight,
            "linear1.bias": layer.expand.bias,
            "linear2.weight": layer.contract.weight,
            "linear2.bias": layer.contract.bias,
            "norm1.weight": layer.attention_norm.weight,
            "norm1.bias": layer.attention_norm.bias,
            "norm2.weight": layer.output_norm.weight,
            "norm2.bias": layer.output_norm.bias,
        }
    )
    return theirs.eval()


@torch.no_grad()
def test_layers_are_torch_s() -> None:
    net = small(Bert)
    ids, mask = sentences()
    expected = net.norm(net.words(ids) + net.positions.weight[:7] + net.segments.weight[0])
    for layer in net.layers:
        expected = torchs_own(net, layer)(expected, src_key_padding_mask=mask == 0)
    found = net(ids, mask)
    visible = mask.bool()
    torch.testing.assert_close(found[visible], expected[visible], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_does_not_change_a_sentence() -> None:
    net = small(SentenceEncoder)
    ids, mask = sentences()
    padded = net(ids, mask)
    alone = net(ids[1:, :4], mask[1:, :4])
    torch.testing.assert_close(padded[1:], alone, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(padded.norm(dim=1), torch.ones(2))
    other = ids.clone()
    other[1, 5] = 7
    assert torch.equal(net(other, mask), padded)


def published_name(name: str) -> str:
    """Return the name of a tensor in published checkpoints, written out by hand."""
    number, _, rest = name.removeprefix("layers.").partition(".")
    inner = {
        "attention.projection": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "expand": "intermediate.dense",
        "contract": "output.dense",
        "output_norm": "output.LayerNorm",
        **{f"attention.{k}": f"attention.self.{k}" for k in ("query", "key", "value")},
    }
    outer = {
        "words": "word_embeddings",
        "positions": "position_embeddings",
        "segments": "token_type_embeddings",
        "norm": "LayerNorm",
    }
    if name.startswith("layers."):
        module, _, kind = rest.rpartition(".")
        return f"encoder.layer.{number}.{inner[module]}.{kind}"
    module, _, kind = name.rpartition(".")
    return f"embeddings.{outer[module]}.{kind}"


def test_published_names() -> None:
    state = small(Bert).state_dict()
    theirs = {published_name(name): value for name, value in state.items()}
    only_for_training = {"pooler.dense.weight": torch.zeros(1), "cls.bias": torch.zeros(1)}
    assert len(theirs) == len(state)
    assert rename_published({**theirs, **only_for_training}).keys() == state.keys()
    prefixed = {f"bert.{name}": value for name, value in theirs.items()}
    assert rename_published(prefixed).keys() == state.keys()


@torch.no_grad()
def test_padding_does_not_change_a_text_s_class() -> None:
    torch.manual_seed(0)
    net = TextClassifier(50, 3, 16, WIDTH, 2, HEADS, INNER).eval()
    ids, mask = sentences()
    logits = net(ids, mask)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(logits[1:], net(ids[1:, :4], mask[1:, :4]), atol=1e-6, rtol=1e-5)
    mean = net.encode(ids, mask)[1, :4].mean(0)
    torch.testing.assert_close(logits[1], net.fc(mean), atol=1e-6, rtol=1e-5)


def test_hidden_words_are_told_by_the_table_of_words() -> None:
    torch.manual_seed(0)
    net = TextClassifier(50, 3, 16, WIDTH, 2, HEADS, INNER)
    head = MaskedWords(net).eval()
    ids, mask = sentences()
    places = torch.tensor([[0, 6], [3, 1]])
    logits = head(ids, mask, places)
    x = net.encode(ids, mask)[1, 3]
    x = head.norm(nn.functional.gelu(head.transform(x)))
    torch.testing.assert_close(logits[1, 0], net.words.weight @ x + head.bias)
    logits.sum().backward()
    assert float(net.layers[0].expand.weight.grad.abs().sum()) > 0
    assert net.fc.weight.grad is None
