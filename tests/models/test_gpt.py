"""GPT against torch's own decoder, and its steps against whole sequences."""

import pytest
import torch
from torch import nn

from edgedl.models.gpt import Gpt


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return Gpt(11, width=12, layers=2, heads=3, feed_forward=20, context=8).eval()


def torchs_own(gpt, tokens):
    """Compute the network with torch's encoder layers and a causal mask."""
    x = gpt.tokens(tokens) + gpt.positions(torch.arange(tokens.shape[1]))
    mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
    for layer in gpt.layers:
        other = nn.TransformerEncoderLayer(
            12, 3, 20, activation="gelu", batch_first=True, norm_first=True
        ).eval()
        parts = (layer.query, layer.key, layer.value)
        other.self_attn.in_proj_weight.data = torch.cat([p.weight for p in parts])
        other.self_attn.in_proj_bias.data = torch.cat([p.bias for p in parts])
        other.self_attn.out_proj = layer.projection
        other.linear1, other.linear2 = layer.expand, layer.contract
        other.norm1, other.norm2 = layer.attention_norm, layer.norm
        x = other(x, src_mask=mask)
    return gpt.head(gpt.norm(x))


def test_it_computes_what_torchs_layers_do(gpt):
    tokens = torch.randint(11, (3, 8))
    with torch.no_grad():
        torch.testing.assert_close(gpt(tokens), torchs_own(gpt, tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_steps_give_what_the_whole_sequence_gives(gpt, size):
    tokens = torch.randint(11, (3, 8))
    state = [torch.zeros(3, *s.shape) for s in gpt.state()]
    found = []
    with torch.no_grad():
        for start in range(0, 8, size):
            outputs = gpt(tokens[:, start : start + size], *state)
            found.append(outputs["logits"])
            state = [outputs[s.output] for s in gpt.state()]
        torch.testing.assert_close(torch.cat(found, 1), gpt(tokens), rtol=1e-5, atol=1e-5)
    assert state[-1].flatten().tolist() == [8.0, 8.0, 8.0]


def test_no_token_sees_a_later_one(gpt):
    tokens = torch.randint(11, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 11
    with torch.no_grad():
        before, after = gpt(tokens), gpt(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


def test_size_of_the_network_of_2018():
    with torch.device("meta"):
        count = sum(p.numel() for p in Gpt().parameters())
    # 116.5 million with shared embeddings, and the output matrix besides.
    assert round((count - 40478 * 768) / 1e6, 1) == 116.5
