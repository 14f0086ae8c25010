"""Contrastive divergence against numpy, and pre-training that learns."""

import re

import numpy as np
import pytest
import torch
from listening import notes_to
from torch import nn

from edgedl.models.dbn import (
    LEARNING_RATE,
    WEIGHT_DECAY,
    BoltzmannMachine,
    DeepBeliefNetwork,
    pretrain,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_one_step_against_numpy():
    torch.manual_seed(0)
    layer, visible = nn.Linear(6, 4), torch.rand(5, 6)
    w, b = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    v = visible.numpy()
    hidden = sigmoid(v @ w.T + b)
    generator = torch.Generator().manual_seed(3)
    sampled = torch.bernoulli(torch.from_numpy(hidden), generator=generator).numpy()
    seen = sigmoid(sampled @ w)
    again = sigmoid(seen @ w.T + b)
    with torch.no_grad():
        error = BoltzmannMachine(layer).learn(visible, torch.Generator().manual_seed(3))
    gradient = (hidden.T @ v - again.T @ seen) / 5 - WEIGHT_DECAY * w
    np.testing.assert_allclose(layer.weight.detach(), w + LEARNING_RATE * gradient, atol=1e-6)
    bias = b + LEARNING_RATE * (hidden - again).mean(0)
    np.testing.assert_allclose(layer.bias.detach(), bias, atol=1e-6)
    np.testing.assert_allclose(error, ((v - seen) ** 2).mean(), rtol=1e-5)


@pytest.mark.slow
def test_pretraining_learns_to_reconstruct():
    torch.manual_seed(0)
    stripes = torch.zeros(256, 1, 6, 6)
    stripes[torch.arange(256), :, torch.randint(0, 6, (256,))] = 1.0
    network = DeepBeliefNetwork(hidden=(16, 8), image_size=6)
    heard = []
    generator = torch.Generator().manual_seed(0)
    pretrain(network, stripes, 60, generator, notes_to(heard.append))
    said = [re.fullmatch(r"pre-training layer (\d), epoch (\d+)/60: error (.*)", t) for t in heard]
    told = [(int(m[1]), int(m[2]), float(m[3])) for m in said if m]
    assert [t[:2] for t in told] == [(n, e) for n in (1, 2) for e in range(1, 61)]
    first = [error for layer, _, error in told if layer == 1]
    assert first[-1] < 0.8 * first[0]
