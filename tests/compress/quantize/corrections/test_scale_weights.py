"""AWQ: the same function, the alphas that a loop over real outputs finds, and fewer errors."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from listening import notes_to
from small_networks import Net, noise
from torch import Tensor, nn
from uneven_networks import same_function, state_of

from edgedl.compress.quantize.corrections.scale_weights import ScaleWeights, scaling_factor
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.recipe_file import parse_recipe
from edgedl.compress.state import ModelState
from edgedl.runtime.errors import BadInputError

TOKENS = (7, 64)
WIDTH = TOKENS[1]


def block(outliers: float = 60.0, affine: bool = True) -> nn.Module:
    """Build the halves of a pre-norm block; two channels behind each norm are far larger."""

    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.norm(x)
        x = x + net.o(torch.softmax(net.q(h) @ net.k(h).transpose(1, 2), -1) @ net.v(h))
        return net.fc2(F.relu(net.fc1(net.norm2(x))))

    torch.manual_seed(4)
    linear = {name: nn.Linear(WIDTH, WIDTH) for name in ("q", "k", "v", "o", "fc1", "fc2")}
    norms = {n: nn.LayerNorm(WIDTH, elementwise_affine=affine) for n in ("norm", "norm2")}
    with torch.no_grad():
        for norm in norms.values() if affine else ():
            norm.weight[[3, 40]] = outliers
            norm.bias.uniform_(-0.2, 0.2)
    return Net(forward, **linear, **norms).eval()


def feed_forward(outliers: float, smaller: float) -> nn.Module:
    """Build two pre-norm pairs of layers; weights behind large channels are smaller."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = x + net.fc2(F.gelu(net.fc1(net.norm(x))))
        return net.head(F.relu(net.up(net.norm2(x))))

    torch.manual_seed(4)
    net = Net(
        forward,
        norm=nn.LayerNorm(WIDTH),
        fc1=nn.Linear(WIDTH, 128),
        fc2=nn.Linear(128, WIDTH),
        norm2=nn.LayerNorm(WIDTH),
        up=nn.Linear(WIDTH, 128),
        head=nn.Linear(128, 10),
    )
    with torch.no_grad():
        for norm, layer in ((net.norm, net.fc1), (net.norm2, net.up)):
            norm.weight[[3, 40]] = outliers
            layer.weight[:, [3, 40]] /= smaller
    return net.eval()


def weight_only_decibels(state: ModelState, net: nn.Module, rounding: str) -> float:
    graph = QuantizeWeights(rounding=rounding).apply(state).weights.graph  # type: ignore
    x = noise(64, *TOKENS, seed=20)
    with torch.no_grad():
        exact, found = net(x), graph(x)
    return float(10 * torch.log10(exact.square().sum() / (exact - found).square().sum()))


@pytest.mark.parametrize("affine", [True, False])
def test_it_computes_the_same_and_leaves_the_given_state(affine: bool) -> None:
    net = block(affine=affine)
    state = state_of(net, TOKENS)
    found = ScaleWeights().apply(state)
    assert same_function(net, found.graph, *TOKENS) < 1e-4
    assert same_function(net, state.graph, *TOKENS) < 1e-5
    lines = found.history[0].settings["alphas"]
    assert [line.partition("=")[0] for line in lines] == ["q", "k", "v", "fc1", "fc2"]


def rounded(weight: np.ndarray, group: int) -> np.ndarray:
    """Round a weight to 4 bits, step by step, as the largest of each group says."""
    found = np.empty_like(weight)
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], group):
            part = weight[row, start : start + group]
            step = np.abs(part).max() / 7
            found[row, start : start + group] = np.rint(part / step).clip(-7, 7) * step
    return found


def test_the_alpha_is_that_of_the_least_error_of_the_outputs() -> None:
    net = block()
    found = ScaleWeights(weight_observer="minmax", samples=48).apply(state_of(net, TOKENS))
    with torch.no_grad():
        x = net.norm(noise(48, *TOKENS, seed=10)).reshape(-1, WIDTH).double().numpy()
    layers = [layer.weight.detach().double().numpy() for layer in (net.q, net.k, net.v)]
    size = np.sqrt((x**2).mean(0))
    errors = []
    for step in range(21):
        factor = size ** (step / 20)
        factor /= np.sqrt(factor.max() * factor.min())
        outputs = [x @ (rounded(w * factor, 32) / factor - w).T for w in layers]
        errors.append(sum(float((y**2).sum()) for y in outputs))
    best = int(np.argmin(errors)) / 20
    assert best > 0
    assert f"q={best:g}" in found.history[0].settings["alphas"]
    assert f"v={best:g}" in found.history[0].settings["alphas"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outliers", "smaller", "rounding", "gain"),
    [
        (20.0, 5.0, "nearest", 5.0),
        (20.0, 5.0, "gptq", 5.0),
        (60.0, 1.0, "nearest", 1.0),
        (1.0, 1.0, "nearest", -0.1),
    ],
)
def test_decibels_come_back_behind_outliers_and_none_are_lost_without(
    outliers: float, smaller: float, rounding: str, gain: float
) -> None:
    net = feed_forward(outliers, smaller)
    state = state_of(net, TOKENS)
    plain = weight_only_decibels(state, net, rounding)
    assert weight_only_decibels(ScaleWeights().apply(state), net, rounding) > plain + gain


def test_channels_that_are_flattened_have_one_factor_each() -> None:
    net = Net(
        lambda net, x: net.fc(F.relu(net.conv(x)).flatten(1)),
        conv=nn.Conv2d(3, 8, 3, padding=1),
        fc=nn.Linear(8 * 64, 5),
    ).eval()
    with torch.no_grad():
        net.conv.weight[2] *= 50
        net.conv.weight[5] = 0
        net.conv.bias[5] = -1
    state = state_of(net)
    found = ScaleWeights().apply(state)
    assert found.history[0].settings["alphas"][0].startswith("fc=")
    assert same_function(net, found.graph, 3, 8, 8) < 1e-4


def test_a_silent_channel_stays_and_the_ends_have_a_mean_of_one() -> None:
    moments = torch.diag(torch.tensor([16.0, 16.0, 0.0, 0.0, 0.25, 0.25]).double())
    expected = torch.tensor([4.0, 1.0, 0.5]) / torch.tensor([4.0 * 0.5]).sqrt()
    expected[1] = 1.0
    torch.testing.assert_close(scaling_factor(moments, 3, 1.0), expected)
    assert scaling_factor(moments, 3, 0.0).tolist() == [1.0] * 3


def test_where_nothing_can_be_divided_the_network_stays() -> None:
    net = Net(lambda net, x: net.fc(x), fc=nn.Linear(8, 4)).eval()
    said: list[str] = []
    found = ScaleWeights().apply(replace(state_of(net, (3, 8)), progress=notes_to(said.append)))
    assert found.history[0].settings["alphas"] == ()
    (note,) = said
    assert note.startswith("scale_weights: no norm or layer can be divided by a factor")


def test_it_stands_before_the_weights_are_quantized() -> None:
    stages = ("scale_weights", "quantize_weights")
    for order in (stages, stages[::-1]):
        text = f"description: x\nstages: [{{stage: {order[0]}}}, {{stage: {order[1]}}}]"
        first, second = parse_recipe(text, "x").stages
        if order == stages:
            second.check_follows((first,))
            continue
        with pytest.raises(BadInputError, match="scale_weights works on the float graph"):
            second.check_follows((first,))
