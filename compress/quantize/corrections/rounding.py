"""Round weights so that a layer's output, not its weight, stays close to the float one's."""

import torch
from torch import Tensor

from edgedl.compress.encodings.encodings import WEIGHT_QMAX
from edgedl.compress.encodings.grouped import largest_integer
from edgedl.compress.quantize.corrections.layerwise import Layer
from edgedl.compress.quantize.corrections.moments import InputMoments

# Added to the diagonal of second moments, as a share of its mean.
DAMPING = 0.01
SMALLEST_MOMENT = 1e-12
# Layers with more inputs per output are rounded to nearest: their moments would not fit memory.
LARGEST = 8192
# Inputs rounded before the error is carried on to those beyond them, in one matrix product.
BLOCK = 128


def round_layer(layer: Layer) -> tuple[Tensor, Tensor | None]:
    """Return a weight on its grid, and a bias, whose output is close to the float layer's.

    The weight is rounded input by input, the error of each carried to those that are not rounded
    yet. The bias takes up what is left: the difference of the mean outputs, that which the layer's
    inputs already bring included.

    Source: Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained
    transformers", 2023, algorithm 1; the bias as in Nagel et al., "Data-free quantization through
    weight equalization and bias correction", 2019, section 4.2.
    """
    inputs = layer.weight[0].numel()
    moments = InputMoments(layer, products=inputs <= LARGEST)
    weight = layer.weight.reshape(moments.groups, -1, inputs).double()
    step = layer.scales.reshape(moments.groups, -1, 1).double()
    if inputs <= LARGEST:
        second = moments.second_moments() if layer.bias is None else moments.covariance()
        rounded = round_with_feedback(weight, _damped(second), step, layer.qmax)
    else:
        rounded = round_to_nearest(weight, step, layer.qmax)
    bias = None
    if layer.bias is not None:
        exact_mean, mean = moments.means()
        shift = weight @ exact_mean[:, :, None] - rounded @ mean[:, :, None]
        bias = (layer.bias.double() + shift.flatten()).float()
    return rounded.reshape(layer.weight.shape).float(), bias


def round_groups_with_feedback(
    weight: Tensor, second_moments: Tensor, scales: Tensor, bits: int
) -> Tensor:
    """Return the integers of a linear layer's weight, rounded with its inputs in view.

    The steps are those of the weight before any error is carried on, so that inputs may be rounded
    in the order of their importance whatever group they are in.

    Source: Frantar et al., 2023, algorithm 1; the order is "act-order" of the authors' program.

    Args:
        weight: float32 [C_out, K].
        second_moments: mean products of the layer's inputs, float64 [K, K].
        scales: float32 [C_out, groups].
        bits: of the integers.

    Returns:
        int8 [C_out, K].
    """
    qmax = largest_integer(bits)
    step = scales.double().repeat_interleave(weight.shape[1] // scales.shape[1], dim=1)
    hessian = _damped(second_moments[None])
    rounded = round_with_feedback(weight.double()[None], hessian, step[None], qmax)[0]
    return (rounded / step).round().to(torch.int8)


def round_to_nearest(weight: Tensor, step: Tensor, qmax: int = WEIGHT_QMAX) -> Tensor:
    """Return the multiples of ``step`` nearest to a weight, at most ``qmax`` of them."""
    return (weight / step).round().clamp(-qmax, qmax) * step


def _damped(moments: Tensor) -> Tensor:
    """Return second moments [groups, K, K] that are safe to invert."""
    diagonal = moments.diagonal(dim1=1, dim2=2)
    extra = (DAMPING * diagonal.mean(1, keepdim=True)).clamp(min=SMALLEST_MOMENT)
    return moments + torch.diag_embed(extra.expand_as(diagonal))


def round_with_feedback(
    weight: Tensor, hessian: Tensor, step: Tensor, qmax: int = WEIGHT_QMAX
) -> Tensor:
    """Round [groups, C_out, K] to multiples of ``step``, later inputs making up for earlier ones.

    A weight of 0 stays 0: what it would make up for is left to those after it (Frantar, Alistarh,
    "SparseGPT", 2023, "Joint sparsification and quantization").

    Args:
        weight: float64 [groups, C_out, K].
        hessian: second moments of the inputs, float64 [groups, K, K], positive definite.
        step: float64 [groups, C_out, 1], or [groups, C_out, K] where inputs differ in their step.
        qmax: largest multiple.
    """
    groups, _, size = weight.shape
    # The inputs that matter most go first, while there are others to make up for them.
    order = hessian.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    rows = torch.arange(groups)[:, None]
    sorted_hessian = hessian[rows[:, :, None], order[:, :, None], order[:, None, :]]
    inverse = torch.linalg.cholesky(torch.linalg.inv(sorted_hessian), upper=True)
    places = order[:, None, :].expand_as(weight)
    work = weight.gather(2, places).clone()
    zero = work == 0
    steps = step.expand_as(weight).gather(2, places)
    result = torch.empty_like(work)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        errors = torch.empty_like(work[:, :, start:end])
        for k in range(start, end):
            column = work[:, :, k : k + 1]
            nearest = round_to_nearest(column, steps[:, :, k : k + 1], qmax)
            nearest[zero[:, :, k : k + 1]] = 0
            error = (column - nearest) / inverse[:, k, k, None, None]
            work[:, :, k + 1 : end] -= error * inverse[:, k : k + 1, k + 1 : end]
            result[:, :, k : k + 1] = nearest
            errors[:, :, k - start : k - start + 1] = error
        work[:, :, end:] -= errors @ inverse[:, start:end, end:]
    back = torch.empty_like(result)
    return back.scatter_(2, places, result)
