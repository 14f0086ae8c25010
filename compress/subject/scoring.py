"""Which score suits labels and outputs, where a user names none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.checks import TOP1, Scores
from edgedl.runtime.task.kept_splits import Array
from edgedl.runtime.task.scores import (
    ACCURACY_OF_EACH,
    AGREEMENT,
    BINARY,
    R2,
    SQNR,
    accuracy_of_each,
    agreement,
    binary_accuracy,
    flattened,
    r2,
    sqnr,
    top1,
)
from edgedl.runtime.wording import meant

# Rows of that length, within a hundredth, are embeddings and no logits.
UNIT_LENGTH = 0.01

ScoreSamples = Callable[[Sequence[Array], Array], Scores]
# A user's: the output, or the tuple of several, and labels [B, ...].
UserScore = Callable[[Any, Array], Any] | str


@dataclass(frozen=True)
class Scoring:
    """How the outputs of a batch are scored.

    Attributes:
        metric: its name.
        score: maps outputs, each [B, ...], and labels to one score a sample.
        labels_of: the labels that outputs of the float network stand for; None if nobody knows.
        says: what the score is, for the user, where nobody asked for it.
        classes: how many classes the labels have; 0 if they are none.
    """

    metric: str
    score: ScoreSamples = field(repr=False)
    labels_of: Callable[[Sequence[Array]], Array] | None = None
    says: str = ""
    classes: int = 0

    @property
    def of_float_network(self) -> bool:
        """Return whether labels are the float network's answers, whatever was given."""
        return self.metric in (AGREEMENT, SQNR)


def find_scoring(
    outputs: Sequence[Array], labels: Array | None, score: UserScore | None
) -> Scoring:
    """Return the user's score, one by its name, or the one that suits outputs and labels.

    Integers [N] beside outputs [N, K] are classes, scored by ``top1``; integers [N, ...] beside
    [N, K, ...] are classes of pixels or steps; numbers of the output's size are scored by ``r2``.
    Without labels the float network is what outputs are held against.

    Args:
        outputs: of the float network for some samples.
        labels: of the same samples, or of all of them; None if there are none.
        score: the user's own; "agreement" and "sqnr" compare with the float network.

    Raises:
        BadInputError: the labels suit no score.
    """
    if isinstance(score, str):
        return _named(score)
    if score is not None:
        return _users(score, labels)
    if labels is None:
        return _fidelity(outputs)
    if len(outputs) == 1:
        found = _of_classes(outputs[0], labels) or _of_numbers(outputs[0], labels)
        if found is not None:
            return found
    shapes = ", ".join(str(list(y.shape)) for y in outputs)
    one_wide = labels.ndim > 1 and labels.shape[1] == 1 and len(outputs) == 1
    if one_wide and _of_classes(outputs[0], labels[:, 0]) is not None:
        raise BadInputError(
            f"labels are {list(labels.shape)} for outputs {shapes}: give labels.squeeze(1)"
        )
    raise BadInputError(
        f"labels {labels.dtype} {list(labels.shape)} fit no usual score of outputs {shapes}: give "
        "score=, a function of (outputs, labels) that returns one number a sample"
    )


def _of_classes(output: Array, labels: Array) -> Scoring | None:
    """Return the score of integers that are numbers of classes."""
    if output.ndim < 2 or labels.dtype.kind not in "biu" or output.shape[1] == 1:
        return None
    if labels.ndim == 1 and output.ndim == 2:
        return Scoring(TOP1, top1, lambda y: y[0].argmax(1), "", output.shape[1])
    if output.ndim > 2 and labels.shape[1:] == output.shape[2:]:
        return Scoring(ACCURACY_OF_EACH, accuracy_of_each, lambda y: y[0].argmax(1))
    return None


def _of_numbers(output: Array, labels: Array) -> Scoring | None:
    """Return the score of labels that are numbers of the output's size.

    Raises:
        BadInputError: they are classes that are written as rows of one 1 among zeros.
    """
    if labels[0].size != output[0].size:
        return None
    rows = labels.reshape(len(labels), -1).astype(np.float64)
    if rows.shape[1] > 1 and ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all():
        raise BadInputError("each label is a row with one 1 among zeros: give labels.argmax(1)")
    variance = float(labels.astype(np.float64).var())
    if rows.shape[1] == 1 and ((rows == 0) | (rows == 1)).all():
        found = output.astype(np.float64)
        probabilities = bool(((found >= 0) & (found <= 1)).all())
        threshold = 0.5 if probabilities else 0.0
        return Scoring(
            BINARY,
            partial(binary_accuracy, threshold=threshold),
            lambda y: (y[0].reshape(len(y[0])).astype(np.float64) > threshold).astype(np.int64),
        )
    return Scoring(R2, partial(r2, variance=variance), lambda y: y[0])


def _users(score: UserScore, labels: Array | None) -> Scoring:
    if not callable(score):
        raise BadInputError(
            f"score is a {type(score).__name__}: it must be a function of (outputs, labels) that "
            "returns one number a sample"
        )
    if labels is None:
        raise BadInputError(
            "score= reads labels and the data have none: give (inputs, labels), or leave score out"
        )

    def call(outputs: Sequence[Array], given: Array) -> Scores:
        one = outputs[0] if len(outputs) == 1 else tuple(outputs)
        return score(one, given)  # type: ignore[no-any-return]

    return Scoring(getattr(score, "__name__", "score").strip("<>"), call)


def _named(name: str) -> Scoring:
    """Return a score of the fidelity to the float network, whose answers are the labels."""
    if name == AGREEMENT:
        return Scoring(AGREEMENT, agreement, lambda y: y[0].argmax(1))
    if name == SQNR:
        return Scoring(SQNR, sqnr, flattened)
    raise BadInputError(
        f"score is '{name}'{meant(name, (AGREEMENT, SQNR))}, or give a function of "
        "(outputs, labels)"
    )


def _fidelity(outputs: Sequence[Array]) -> Scoring:
    first = outputs[0]
    if len(outputs) == 1 and first.ndim == 2 and first.shape[1] > 1 and not _are_embeddings(first):
        return Scoring(
            AGREEMENT,
            agreement,
            lambda y: y[0].argmax(1),
            "the data have no labels: the score says how often the largest output is the float "
            "network's; give labels for an accuracy, or score='sqnr' if outputs are no logits",
        )
    return Scoring(
        SQNR,
        sqnr,
        flattened,
        "the data have no labels: the score is the signal-to-quantization-noise ratio against the "
        "float network; a drop of 1 point is 20 dB",
    )


def _are_embeddings(rows: Array) -> bool:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    return bool((np.abs(lengths - 1) < UNIT_LENGTH).all() and float(rows.min()) < 0)
