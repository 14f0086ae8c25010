"""Fake quantization that can be trained: rounding forwards, LSQ's gradients backwards."""

import math
from typing import Any

import torch
from torch import Tensor

from edgedl.compress.encodings.encodings import WEIGHT_QMAX, per_channel, quantize_weight

ACTIVATION_QMAX = 255


class _LearnedActivation(torch.autograd.Function):
    """See ``quantize_activation``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(
            x, scale.item(), int(zero_point.item()), 0, ACTIVATION_QMAX
        )
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, zero_point = ctx.saved_tensors
        # Of the batch, LSQ counts one sample: the loss is a mean over them.
        return step_gradients(
            gradients[0], x, scale, -zero_point, ACTIVATION_QMAX - zero_point, x[0].numel()
        )


class _LearnedWeight(torch.autograd.Function):
    """See ``round_weight``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scales: Tensor, axis: int, qmax: int) -> Tensor:
        ctx.qmax = qmax
        step = per_channel(scales, axis, weight.ndim)
        ctx.save_for_backward(weight, step)
        return quantize_weight(weight, scales, axis, qmax) * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, step = ctx.saved_tensors
        end = weight.new_tensor(float(ctx.qmax))
        count = weight.numel() // step.numel()
        to_weight, to_step, _ = step_gradients(gradients[0], weight, step, -end, end, count)
        return to_weight, to_step.flatten(), None, None


class _StraightThrough(torch.autograd.Function):
    """See ``straight_through``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, replacement: Tensor) -> Tensor:
        return replacement.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def step_gradients(
    gradient: Tensor, x: Tensor, scale: Tensor, low: Tensor, high: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a rounded tensor to its values, its step and its zero point.

    With v = x / s: the value passes its gradient on where low < v < high. The step gets
    round(v) - v there and the end itself elsewhere, times 1 / sqrt(count * Qp). The zero point
    z stands for the offset -z * s, whose gradient is 1 where x is clipped, 0 elsewhere.

    Args:
        gradient: to the rounded tensor, float32 of the shape of x.
        x: float32.
        scale: step, of a shape that broadcasts to x.
        low: lower end of the grid, in steps from zero.
        high: upper end; Qp is the larger magnitude of both.
        count: values that share the step.

    Source: Esser et al., "Learned step size quantization", 2020, equations 3 and 5 and section
    2.2; Bhalgat et al., "LSQ+: improving low-bit quantization through learnable offsets and
    better initialization", 2020, equations 4 and 5 (for the offset, in steps).
    """
    v = x / scale
    ends = v.clamp(low, high)
    inside = (v > low) & (v < high)
    passed = gradient * inside
    importance = 1 / math.sqrt(max(count, 1) * float(torch.maximum(high, -low).max()))
    to_scale = gradient * ends.round() - passed * v
    to_zero_point = (passed - gradient) * scale
    return (
        passed,
        to_scale.sum_to_size(scale.shape) * importance,
        to_zero_point.sum_to_size(scale.shape) * importance,
    )


def quantize_activation(x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Round a float32 tensor to ONNX Runtime's uint8 grid and back; see ``step_gradients``.

    Args:
        x: float32 [B, ...].
        scale: float32 [].
        zero_point: float32 [], a whole number from 0 to 255.
    """
    result: Tensor = _LearnedActivation.apply(x, scale, zero_point)
    return result


def round_weight(weight: Tensor, scales: Tensor, axis: int, qmax: int = WEIGHT_QMAX) -> Tensor:
    """Round a weight to symmetric integers and back, per channel; see ``step_gradients``.

    Args:
        weight: float32.
        scales: float32 [C_out].
        axis: of the output channels.
        qmax: largest integer.
    """
    result: Tensor = _LearnedWeight.apply(weight, scales, axis, qmax)
    return result


def straight_through(x: Tensor, replacement: Tensor) -> Tensor:
    """Return ``replacement``, to the last bit, with the gradient of x.

    Source: Bengio, Leonard, Courville, "Estimating or propagating gradients through stochastic
    neurons for conditional computation", 2013, section 4.
    """
    result: Tensor = _StraightThrough.apply(x, replacement)
    return result
