"""What edgedl knows about torch operators. Everything else computes in float."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

LINEAR = aten.linear.default

# Operators with a constant weight -> the weight's output-channel axis.
WEIGHTED: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.default: 0,
    aten.conv2d.padding: 0,
    LINEAR: 0,
}

# Written as convolutions before anything is quantized (graph/transposed_convolution.py).
TRANSPOSED = aten.conv_transpose2d.input

CONVOLUTIONS: frozenset[Any] = frozenset(WEIGHTED) - {LINEAR}

# Activations that a runtime folds into the requantization of the operator before them.
FUSED_ACTIVATIONS: frozenset[Any] = frozenset(
    {
        aten.relu.default,
        aten.hardtanh.default,
        aten.clamp.default,
        aten.relu6.default,
    }
)

MAX_POOLS: frozenset[Any] = frozenset({aten.max_pool1d.default, aten.max_pool2d.default})

# Pools of pictures, into which TFLite folds an activation if both are on one grid.
FOLDING_POOLS: frozenset[Any] = frozenset({aten.max_pool2d.default, aten.avg_pool2d.default})

MULTIPLY = aten.mul.Tensor

# f(s x) = s f(x) for every s > 0, element by element.
HOMOGENEOUS: frozenset[Any] = frozenset(
    {
        aten.relu.default,
        aten.leaky_relu.default,
        aten.clone.default,
        aten.contiguous.default,
    }
)

# Operators after which such an activation is folded.
ACTIVATION_PRODUCERS: frozenset[Any] = frozenset(
    {*WEIGHTED, *FOLDING_POOLS, aten.add.Tensor, MULTIPLY}
)

EMBEDDING = aten.embedding.default

# Operators whose output lies among the values of their first input, so that both share one
# encoding: they move, choose or average values.
PASS_THROUGH: frozenset[Any] = frozenset(
    {
        aten.view.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.transpose.int,
        aten.permute.default,
        aten.max_pool1d.default,
        aten.max_pool2d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
        aten.amax.default,
        aten.upsample_nearest2d.vec,
        aten.upsample_bilinear2d.vec,
        aten.channel_shuffle.default,
        aten.pixel_shuffle.default,
        aten.pixel_unshuffle.default,
        aten.expand.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.squeeze.default,
        aten.unflatten.int,
        aten.flip.default,
        aten.repeat.default,
        aten.tile.default,
        aten.repeat_interleave.self_int,
        aten.index_select.default,
        aten.contiguous.default,
        aten.clone.default,
        aten.pad.default,
        aten.constant_pad_nd.default,
        EMBEDDING,
    }
)

# Arithmetic of two operands.
ARITHMETIC: frozenset[Any] = frozenset(
    {
        aten.add.Tensor,
        aten.sub.Tensor,
        MULTIPLY,
        aten.maximum.default,
        aten.minimum.default,
    }
)

# Operators that compute in int8 and have an encoding of their own.
ELEMENTWISE: frozenset[Any] = frozenset(
    {
        *ARITHMETIC,
        aten.mean.dim,
        aten.sum.dim_IntList,
        aten.leaky_relu.default,
        aten.hardswish.default,
        aten.gelu.default,
    }
)

# Layers that step through time in one operator.
RECURRENT: frozenset[Any] = frozenset(
    {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}
)

ATTENTION: frozenset[Any] = frozenset({aten.scaled_dot_product_attention.default})

CONCAT = aten.cat.default

# Operators that TFLite has in 8 bits only.
WITHOUT_INT16: frozenset[Any] = frozenset(
    {
        CONCAT,
        aten.gelu.default,
        aten.hardsigmoid.default,
        aten.hardswish.default,
        aten.index_select.default,
    }
)

# Operators whose integer kernels have one grid for their output -> the range of that grid: 256
# steps of 1/256 and of 1/128; a hard sigmoid is written as others, and reaches its ends.
FIXED_RANGES: dict[Any, tuple[float, float]] = {
    aten.hardsigmoid.default: (0.0, 1.0),
    aten.sigmoid.default: (0.0, 255 / 256),
    aten.softmax.int: (0.0, 255 / 256),
    aten._softmax.default: (0.0, 255 / 256),
    aten.tanh.default: (-1.0, 127 / 128),
}

# The same of kernels with 16 bits, whose steps are 1/32768.
FIXED_END_INT16 = 32767 / 32768

SOFTMAX: frozenset[Any] = frozenset({aten.softmax.int, aten._softmax.default})

# Operators that write a huge negative number where softmax shall see nothing.
MASKING: frozenset[Any] = frozenset(
    {
        aten.where.self,
        aten.where.Scalar,
        aten.where.ScalarOther,
        aten.masked_fill.Scalar,
        aten.masked_fill.Tensor,
    }
)

# Scores this low are a mask's doing: beside any other, softmax makes 0 of them.
MASKED_BELOW = -1000.0

# Products of two activations.
MATRIX_PRODUCTS: frozenset[Any] = frozenset({aten.matmul.default, aten.bmm.default})

# The same, behind what is added to them.
ADDED_PRODUCTS: frozenset[Any] = frozenset({aten.baddbmm.default, aten.addmm.default})

QUANTIZABLE: frozenset[Any] = frozenset(
    {
        *WEIGHTED,
        *FUSED_ACTIVATIONS,
        *PASS_THROUGH,
        *ELEMENTWISE,
        *FIXED_RANGES,
        *MATRIX_PRODUCTS,
        CONCAT,
    }
)


def moves_values(node: fx.Node) -> bool:
    """Say whether a node only moves values, so that its output is on the grid of its input.

    Padding with anything but zero brings in a value that nobody observed, and runtimes disagree
    on average pools whose windows hang over the edge: those compute in float.
    """
    if node.target not in PASS_THROUGH:
        return False
    if node.target is aten.pad.default:
        return len(node.args) < 4 or not node.args[3]
    if node.target is aten.constant_pad_nd.default:
        return len(node.args) < 3 or not node.args[2]
    if node.target is aten.avg_pool2d.default:
        ceil_mode = len(node.args) > 4 and bool(node.args[4])
        counts_padding = len(node.args) < 6 or bool(node.args[5])
        return counts_padding and not ceil_mode
    if node.target is aten.adaptive_avg_pool2d.default:
        return _divides(node)
    return True


def folds_activation(node: fx.Node) -> bool:
    """Say whether runtimes fold an activation behind a node into it; a product, of activations."""
    if node.target is MULTIPLY:
        return all(isinstance(a, fx.Node) and a.op != "get_attr" for a in node.args[:2])
    return node.target in ACTIVATION_PRODUCERS


def _divides(pool: fx.Node) -> bool:
    """Say whether the windows of an adaptive pool are all of one size."""
    source = pool.args[0]
    if not isinstance(source, fx.Node) or "val" not in source.meta:
        return False
    before, after = source.meta["val"].shape[-2:], pool.meta["val"].shape[-2:]
    return all(isinstance(b, int) and b % a == 0 for b, a in zip(before, after, strict=True))


def is_quantizable(node: fx.Node) -> bool:
    """Say whether a node can compute in int8 on the runtimes."""
    if node.target in PASS_THROUGH:
        return moves_values(node)
    return node.target in QUANTIZABLE


def is_product(node: fx.Node) -> bool:
    """Say whether a node multiplies and sums: where the time of a network goes."""
    return node.target in WEIGHTED or node.target in MATRIX_PRODUCTS


def has_int16_kernel(node: fx.Node) -> bool:
    """Say whether TFLite computes a quantizable node in 16 bits, not in 8 alone.

    Found by conversion: the converter refuses the operators of ``WITHOUT_INT16`` in 16 bits, the
    padding of a pool, and constants in arithmetic.
    """
    if node.target in WITHOUT_INT16:
        return False
    if node.target in MAX_POOLS:
        padding: Any = node.args[3] if len(node.args) > 3 else 0
        return not any(padding) if isinstance(padding, (list, tuple)) else not padding
    if node.target in ARITHMETIC or node.target in MATRIX_PRODUCTS:
        return all(isinstance(a, fx.Node) and a.op != "get_attr" for a in node.args[:2])
    return True


def groups_of(node: fx.Node) -> int:
    """Return the groups of a convolution; a linear layer has one."""
    has_groups = node.target in WEIGHTED or node.target is TRANSPOSED
    given: Any = node.args[6] if has_groups and len(node.args) > 6 else 1
    return int(given)
