"""A grammar of layers, and networks drawn from it.

A network is a chain of steps over one tensor, of one of three kinds: pictures [N, C, H, W], series
[N, T, C], vectors [N, F]. Every step is drawn from those that its kind has; some lead to another
kind. A head ends it: its parts are known, so that each can be looked at by itself.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.sweep import heads, pictures, series, vectors
from benchmarks.sweep.step import Kind, Step

MOST_STEPS = 6

STEPS: dict[Kind, tuple[Step, ...]] = {
    "picture": pictures.STEPS,
    "series": series.STEPS,
    "vector": vectors.STEPS,
}
STARTS: dict[Kind, tuple[tuple[int, ...], ...]] = {
    "picture": ((3, 16, 16), (1, 12, 20), (4, 17, 15)),
    "series": ((16, 6), (9, 12)),
    "vector": ((10,), (24,)),
}


@dataclass(frozen=True)
class Drawn:
    """A network and what is known of it.

    Attributes:
        seed: it was drawn with.
        module: in evaluation mode.
        shape: of one sample.
        words: names of its steps.
        parts: (output, mask over the flat values of a sample) of every part of an output.
    """

    seed: int
    module: nn.Module
    shape: tuple[int, ...]
    words: tuple[str, ...]
    parts: tuple[tuple[int, Tensor], ...]


class Chain(nn.Module):
    """Steps, one behind the other, and a head."""

    def __init__(self, steps: Sequence[nn.Module], head: nn.Module) -> None:
        """Take them."""
        super().__init__()
        self.steps, self.head = nn.ModuleList(steps), head

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what the head makes of the steps."""
        for step in self.steps:
            x = step(x)
        out: Tensor | tuple[Tensor, ...] = self.head(x)
        return out


def draw(seed: int) -> Drawn:
    """Return the network of a seed: the same every time."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind: Kind = rng.choice(("picture", "picture", "series", "vector"))
    shape = rng.choice(STARTS[kind])
    x = torch.randn(8, *shape)
    steps: list[nn.Module] = []
    words: list[str] = [kind]
    for _ in range(rng.randint(2, MOST_STEPS)):
        name, after, make = rng.choice(STEPS[kind])
        step = make(rng, x.shape)
        # Statistics of batch norms are those of some data.
        with torch.no_grad():
            found = step.train()(x)
        steps.append(step)
        words.append(name)
        x, kind = found, after
    name, head = heads.draw(rng, kind, x.shape)
    module = Chain(steps, head).eval()
    with torch.no_grad():
        outputs = module(torch.randn(2, *shape))
    return Drawn(seed, module, shape, (*words, name), tuple(heads.parts(head, outputs)))
