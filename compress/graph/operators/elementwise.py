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

ADD, SUB, MULTIPLY, MAXIMUM, MINIMUM = ARITHMETIC = tuple(
    Operator(
        str(overload).split(".")[1],
        (overload,),
        Ranges.COMPUTES,
        folds_activation=folds,
        join_axes=elementwise,
    )
    for overload, folds in (
        (aten.add.Tensor, always),
        (aten.sub.Tensor, never),
        # A runtime folds an activation into a product of activations alone.
        (aten.mul.Tensor, reads_activations),
        (aten.maximum.default, never),
        (aten.minimum.default, never),
    )
)
# Whatever else torch itself says works position by position: it computes in float.
POINTWISE = Operator("pointwise", (), join_axes=elementwise)
COPIES = tuple(
    Operator(name, (overload,), Ranges.PASSES, homogeneous=True, join_axes=elementwise)
    for name, overload in (("clone", aten.clone.default), ("contiguous", aten.contiguous.default))
)
ROWS = (
    *ARITHMETIC,
    *COPIES,
    # Those without torch's tag that says so.
    Operator(
        "alias",
        (aten.alias.default, aten.detach_.default, aten.to.dtype),
        join_axes=elementwise,
    ),
    Operator(
        "where",
        (aten.where.self, aten.where.Scalar, aten.where.ScalarOther),
        masks=True,
        join_axes=elementwise,
    ),
    Operator(
        "masked_fill",
        (aten.masked_fill.Scalar, aten.masked_fill.Tensor),
        masks=True,
        join_axes=elementwise,
    ),
    Operator(
        "dropout",
        (
            aten.dropout.default,
            aten.dropout_.default,
            aten.feature_dropout.default,
            aten.alpha_dropout.default,
            aten.feature_alpha_dropout.default,
        ),
        training="train",
        join_axes=elementwise,
    ),
    POINTWISE,
)
