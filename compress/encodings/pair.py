"""Quantize and dequantize operators of an emitted graph."""

from dataclasses import dataclass

import torch
from torch import fx

from edgedl.compress.encodings.affine import Affine
from edgedl.compress.graph.operators.operator import View


@dataclass(frozen=True)
class Pair(View):
    """Half of a quantize/dequantize pair, with one grid for the whole tensor."""

    input: fx.Node
    scale: float
    zero_point: int
    quant_min: int
    quant_max: int
    dtype: torch.dtype

    @property
    def affine(self) -> Affine:
        """Return the grid."""
        name = str(self.dtype).removeprefix("torch.")
        return Affine(self.scale, self.zero_point, self.quant_min, self.quant_max, name)  # type: ignore[arg-type]
