"""Arithmetic, and what else computes position by position."""

from edgedl.compress.graph.operators.operator import (
    Operator,
    Ranges,
    always,
    aten,
    elementwise,
    never,
    reads_activations,
)

# Scores this low are a mask's doing: beside any other, softmax makes 0 of them.
MASKED_BELOW = -1000.0

ARITHMETIC = ADD, SUB, MULTIPLY, MAXIMUM, MINIMUM = tuple(
    Operator((overload,), Ranges.COMPUTES, folds_activation=folds, join_axes=elementwise)
    for overload, folds in (
        (aten.add.Tensor, always),
        (aten.sub.Tensor, never),
        # A runtime folds an activation into a product of activations alone.
        (aten.mul.Tensor, reads_activations),
        (aten.maximum.default, never),
        (aten.minimum.default, never),
    )
)
COPIES = tuple(
    Operator((overload,), Ranges.PASSES, homogeneous=True, join_axes=elementwise)
    for overload in (aten.clone.default, aten.contiguous.default)
)
# Whatever else torch itself says works position by position: it computes in float.
POINTWISE = Operator((), join_axes=elementwise)
# Of these, a small error of a small value is a large one of the result.
EXPANDING = tuple(
    Operator((overload,), expands=(name,), join_axes=elementwise)
    for overload, name in (
        (aten.sqrt.default, "input"),
        (aten.rsqrt.default, "input"),
        (aten.log.default, "input"),
        (aten.log2.default, "input"),
        (aten.log10.default, "input"),
        (aten.reciprocal.default, "input"),
        (aten.div.Tensor, "other"),
    )
)
# A spike, a hard gate, a rounding.
JUMPING = tuple(
    Operator(overloads, jumps=True, join_axes=elementwise)
    for overloads in (
        (aten.ge.Scalar, aten.ge.Tensor),
        (aten.gt.Scalar, aten.gt.Tensor),
        (aten.le.Scalar, aten.le.Tensor),
        (aten.lt.Scalar, aten.lt.Tensor),
        (aten.sign.default,),
        (aten.heaviside.default,),
        (aten.round.default,),
        (aten.floor.default,),
        (aten.ceil.default,),
        (aten.trunc.default,),
    )
)
# Those without torch's tag that says so.
_SAME = (aten.alias.default, aten.detach_.default, aten.to.dtype)
_DROPOUTS = (
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)
_CHOICES = (aten.where.self, aten.where.Scalar, aten.where.ScalarOther)
_FILLS = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)
ROWS = (
    *ARITHMETIC,
    *COPIES,
    *EXPANDING,
    *JUMPING,
    Operator(_SAME, join_axes=elementwise),
    Operator(_DROPOUTS, training="train", join_axes=elementwise),
    Operator(_CHOICES, masks=True, join_axes=elementwise),
    Operator(_FILLS, masks=True, join_axes=elementwise),
)
