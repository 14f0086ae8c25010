"""Heads, whose outputs have parts that are known."""

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

# Boxes in pixels, numbers of other sizes.
SIZES = (1.0, 1.0, 10.0, 300.0)


class Head(nn.Module):
    """Layers over the last axis, or over the channels of a picture, joined or not.

    Attributes:
        form: "one", "joined" (one tensor), "several" (a tuple), "number" ([N]) or "top" (the best
            places and their values).
    """

    def __init__(self, form: str, layers: Sequence[nn.Module], factors: Sequence[float]) -> None:
        """Take a layer and a factor for each part."""
        super().__init__()
        self.form, self.layers, self.factors = form, nn.ModuleList(layers), list(factors)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs."""
        found = [
            layer(x) if index % 2 else layer(x).sigmoid() * factor
            for index, (layer, factor) in enumerate(zip(self.layers, self.factors, strict=True))
        ]
        if self.form == "several":
            return tuple(found)
        if self.form == "number":
            number: Tensor = found[0].flatten(1).mean(1)
            return number
        if self.form == "joined":
            return torch.cat(found, 1 if x.ndim == 4 else -1)
        whole: Tensor = found[0]
        return whole


def draw(rng: random.Random, kind: str, shape: Sequence[int]) -> tuple[str, Head]:
    """Return the name of a head and the head for what has a shape."""
    form = rng.choice(("one", "joined", "joined", "several", "number"))
    count = rng.randint(2, 3) if form in ("joined", "several") else 1
    layers: list[nn.Module] = []
    for _ in range(count):
        out = rng.choice((1, 4, 6))
        layers.append(
            nn.Conv2d(shape[1], out, 1) if kind == "picture" else nn.Linear(shape[-1], out)
        )
    return form, Head(form, layers, [rng.choice(SIZES) for _ in range(count)])


def parts(head: nn.Module, outputs: Tensor | tuple[Tensor, ...]) -> Iterator[tuple[int, Tensor]]:
    """Yield (output, mask over a sample's flat values) of every part that the head joined."""
    if not isinstance(head, Head):
        raise TypeError(f"{type(head).__name__} is no head")
    several = (outputs,) if isinstance(outputs, Tensor) else outputs
    for index, output in enumerate(several):
        sample = output[0]
        if head.form != "joined":
            yield index, torch.ones(max(1, sample.numel()), dtype=torch.bool)
            continue
        axis = 0 if output.ndim == 4 else sample.ndim - 1
        widths = [int(layer.weight.shape[0]) for layer in head.layers]  # type: ignore[index]
        start = 0
        for width in widths:
            mask = torch.zeros_like(sample, dtype=torch.bool)
            mask.narrow(axis, start, width).fill_(True)
            yield index, mask.flatten()
            start += width
