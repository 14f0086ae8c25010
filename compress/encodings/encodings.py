"""The one table: what every tensor of a network ranges over. Every emitter reads it."""

import math
from dataclasses import dataclass
from typing import Literal

import msgspec
import torch
import torch.ao.quantization.fx._decomposed
from torch import Tensor

WEIGHT_BITS = 8
WEIGHT_QMAX = 127

# What the files of a table hold: int8; int8 weights with int16 activations; E4M3 floats.
QuantizedPrecision = Literal["int8", "int8_int16", "fp8"]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The real values that a tensor's integers must cover; ``lo <= hi``, both finite."""

    lo: float
    hi: float

    def __post_init__(self) -> None:
        """Reject what no integer grid can cover."""
        if not (math.isfinite(self.lo) and math.isfinite(self.hi) and self.lo <= self.hi):
            raise ValueError(f"not a range: [{self.lo}, {self.hi}]")


@dataclass(frozen=True)
class Encodings:
    """Ranges of activations and constants by node name, of weights by their path.

    Attributes:
        activations: node name -> range over all samples.
        weights: path of a weight -> float32 [C_out], the largest magnitude each output channel's
            integers cover (its scale is that over ``weight_qmax``, its zero point 0).
        float_nodes: names of the operators that compute in float all the same.
        float_results: names of the int8 products whose results are not rounded where the runtime
            can give floats.
        weight_bits: of every weight's integers; they are stored in 8 all the same.
        precision: of the files.
    """

    activations: dict[str, Range]
    weights: dict[str, Tensor]
    float_nodes: frozenset[str] = frozenset()
    float_results: frozenset[str] = frozenset()
    weight_bits: int = WEIGHT_BITS
    precision: QuantizedPrecision = "int8"

    @property
    def weight_qmax(self) -> int:
        """Return the largest integer of a weight; the smallest is its negative."""
        return int(2 ** (self.weight_bits - 1)) - 1

    @property
    def activation_bits(self) -> int:
        """Return the bits of every quantized activation."""
        return 16 if self.precision == "int8_int16" else 8

    @classmethod
    def from_json(cls, content: bytes) -> "Encodings":
        """Read what ``to_json`` wrote, to the last bit.

        Raises:
            msgspec.MsgspecError: it is not JSON, or not such a table.
        """
        table = msgspec.json.decode(content, type=_Written)
        return cls(
            {name: Range(**ends) for name, ends in table.activations.items()},
            {path: torch.tensor(amax) for path, amax in table.weights.items()},
            table.float_nodes,
            table.float_results,
            table.weight_bits,
            table.precision,
        )

    def to_json(self) -> bytes:
        """Return the table as indented JSON, for the bundle."""
        table = {
            "activations": {name: {"lo": r.lo, "hi": r.hi} for name, r in self.activations.items()},
            "weights": {path: amax.tolist() for path, amax in self.weights.items()},
            "float": sorted(self.float_nodes),
            "float_results": sorted(self.float_results),
            "weight_bits": self.weight_bits,
            "precision": self.precision,
        }
        return msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n"


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table as JSON has it."""

    activations: dict[str, dict[str, float]]
    weights: dict[str, list[float]]
    float_nodes: frozenset[str] = msgspec.field(name="float")
    float_results: frozenset[str]
    weight_bits: int
    precision: QuantizedPrecision


def weight_scales(amax: Tensor, qmax: int = WEIGHT_QMAX) -> Tensor:
    """Return the per-channel scales of a weight, float32 [C_out]."""
    return (amax / qmax).to(torch.float32)


def quantize_weight(weight: Tensor, scales: Tensor, axis: int, qmax: int = WEIGHT_QMAX) -> Tensor:
    """Return a float32 weight rounded to its grid, int8 of the same shape, -qmax to qmax."""
    zeros = torch.zeros(len(scales), dtype=torch.int64, device=scales.device)
    integers: Tensor = torch.ops.quantized_decomposed.quantize_per_channel(
        weight, scales, zeros, axis, -qmax, qmax, torch.int8
    )
    return integers


def round_bias(bias: Tensor, scales: Tensor, input_scale: float | Tensor) -> Tensor:
    """Return a bias on the int32 grid of the accumulator, float32 [C_out], on the bias's device.

    A multiple of input scale times weight scale is what int32 kernels add.

    Args:
        bias: float32 [C_out].
        scales: of the weight, [C_out].
        input_scale: step of the layer's input.
    """
    # On the CPU: not every device has float64.
    read = torch.as_tensor(input_scale, device="cpu").detach().double()
    step = scales.detach().cpu().double() * read
    return (torch.round(bias.detach().cpu().double() / step) * step).float().to(bias.device)


def per_channel(values: Tensor, axis: int, dimensions: int) -> Tensor:
    """Return values [C] in the shape that broadcasts along ``axis`` of a tensor."""
    return values.view([-1 if i == axis else 1 for i in range(dimensions)])
