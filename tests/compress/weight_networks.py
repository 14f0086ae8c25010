"""Small networks with every kind of weight that can be stored as integers, and their files."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from small_networks import Net, noise
from torch import Tensor, nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.encodings.grouped import WeightOnlyNetwork
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import Target
from edgedl.runtime.task.task import ArrayTask, Samples

WORDS, LENGTH = 12, 5


def _tokens() -> nn.Module:
    """Build an embedding, linear layers of [N, T, C] and [N, C], and a product with a constant."""

    def forward(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        h = net.embedding(x)
        h = h + net.out(F.relu(net.hidden(h)))
        h = h + net.conv(h.transpose(1, 2)).transpose(1, 2)
        return net.head(h.flatten(1)), h @ net.constant + net.tied(h)

    net = Net(
        forward,
        embedding=nn.Embedding(WORDS, 64),
        hidden=nn.Linear(64, 40),
        out=nn.Linear(40, 64, bias=False),
        conv=nn.Conv1d(64, 64, 3, padding=1),
        head=nn.Linear(64 * LENGTH, 7),
        constant=nn.Parameter(noise(64, WORDS, seed=3)),
        tied=nn.Linear(64, WORDS, bias=False),
    )
    net.tied.weight = net.embedding.weight
    return net


def _pictures() -> nn.Module:
    """Build convolutions, plain, strided, grouped depthwise, and a linear layer."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.depthwise(F.relu(net.stem(x))))
        return net.head(F.relu(net.point(x)).flatten(1))

    return Net(
        forward,
        stem=nn.Conv2d(3, 6, 3, stride=2, padding=1),
        depthwise=nn.Conv2d(6, 6, 3, padding=1, groups=6),
        point=nn.Conv2d(6, 4, 1),
        head=nn.Linear(64, 5),
    )


def _inputs(name: str, seed: int, count: int = 24) -> np.ndarray:
    if name == "tokens":
        return np.random.default_rng(seed).integers(0, WORDS, (count, LENGTH))
    return noise(count, 3, 8, 8, seed=seed).numpy()


_MAKERS = {"tokens": _tokens, "pictures": _pictures}


@cache
def state(name: str) -> ModelState:
    """Return one of the two networks, traced."""

    def split(seed: int) -> Samples:
        return Samples((_inputs(name, seed),), np.zeros(24, np.int64))

    torch.manual_seed(2)
    task = ArrayTask(
        name=name,
        splits={"calibration": lambda: split(10), "test": lambda: split(20)},
        metric="output",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
    )
    subject = Subject(name, _MAKERS[name]().eval(), task)
    return begin(subject)


class Weights:
    """A network with integer weights, and the files made from it (each made once)."""

    def __init__(self, name: str, stage: QuantizeWeights) -> None:
        self.state = stage.apply(state(name))
        assert self.state.weights is not None
        self.network: WeightOnlyNetwork = self.state.weights
        self.x = _inputs(name, 20)
        self._builder = ArtifactBuilder(self.state)
        self._files: dict[str, bytes] = {}

    def file(self, target: Target) -> bytes:
        if target.name not in self._files:
            precision = self.state.precisions[-1]
            self._files[target.name] = self._builder.file(target, precision)[1]
        return self._files[target.name]

    def expected(self) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = self.network.graph(torch.tensor(self.x))
        return [y.numpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


VARIANTS: dict[str, tuple[str, QuantizeWeights]] = {
    "tokens_w4g32": ("tokens", QuantizeWeights(4, 32)),
    "tokens_w8c": ("tokens", QuantizeWeights(8, None)),
    "tokens_w8g32": ("tokens", QuantizeWeights(8, 32)),
    "pictures_w8c": ("pictures", QuantizeWeights(8, None)),
}


@cache
def weights(name: str) -> Weights:
    """Return one of ``VARIANTS``."""
    return Weights(*VARIANTS[name])
