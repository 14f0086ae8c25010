"""Scores of the usual kinds of tasks: one number a sample, larger is better, best is 1."""

from collections.abc import Sequence

import numpy as np

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.checks import Scores, check_labels
from edgedl.runtime.task.kept_splits import Array

# Names of metrics; TOP1 is the fourth.
ACCURACY_OF_EACH = "accuracy"
BINARY = "binary_accuracy"
AGREEMENT = "agreement"
R2 = "r2"
SQNR = "sqnr"
BITS = "bits_per_character"

# A label that does not count.
NO_LABEL = -100
# What a character takes that is not compressed.
BITS_OF_A_BYTE = 8


def top1(outputs: Sequence[Array], labels: Array) -> Scores:
    """Score 1.0 where the largest of the logits is at the label, else 0.0.

    Args:
        outputs: one array of logits [B, K].
        labels: integers [B].

    Raises:
        BadInputError: a label is no number of an output.

    >>> top1([np.array([[0.1, 0.9], [0.8, 0.2]])], np.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    if outputs[0].ndim == 2 and labels.ndim == 1:
        count = outputs[0].shape[1]
        check_labels("the task", labels, count, f"and the network has {count} outputs")
    hits: Scores = np.asarray(outputs[0].argmax(axis=1) == labels, np.float64)
    return hits


def accuracy_of_each(outputs: Sequence[Array], labels: Array) -> Scores:
    """Score the share of a sample's labels, of pixels for example, at which the logit is largest.

    Labels that are no class, such as 255 or -100 for what is not labelled, do not count.

    Args:
        outputs: one array of logits, [B, K, ...].
        labels: integers [B, ...].

    Raises:
        BadInputError: the shapes do not fit.

    >>> accuracy_of_each([np.array([[[0.1, 0.8], [0.9, 0.2]]])], np.array([[1, 1]])).tolist()
    [0.5]
    """
    found = outputs[0].argmax(axis=1)
    if found.shape != labels.shape:
        raise BadInputError(
            f"labels {list(labels.shape)} do not fit outputs {list(outputs[0].shape)}: expected "
            f"{list(found.shape)}"
        )
    count = len(labels)
    counts = (
        (labels.astype(np.int64) >= 0) & (labels.astype(np.int64) < outputs[0].shape[1])
    ).reshape(count, -1)
    hits = (found == labels).reshape(count, -1) & counts
    return np.asarray(hits.sum(axis=1) / np.maximum(1, counts.sum(axis=1)), np.float64)


def binary_accuracy(outputs: Sequence[Array], labels: Array, threshold: float = 0.0) -> Scores:
    """Score 1.0 where an output above the threshold has the label 1, and one below the label 0.

    Args:
        outputs: one array of logits or probabilities, [B] or [B, 1].
        labels: 0 or 1, [B] or [B, 1].
        threshold: 0 for logits, 0.5 for probabilities.

    >>> binary_accuracy([np.array([[2.0], [-1.0]])], np.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    found = outputs[0].reshape(len(labels)).astype(np.float64) > threshold
    return np.asarray(found == (labels.reshape(len(labels)).astype(np.float64) > 0.5), np.float64)


def agreement(outputs: Sequence[Array], labels: Array) -> Scores:
    """Score 1.0 where the largest of the logits [B, K] is the float network's, labels [B]."""
    return top1(outputs, labels)


def r2(outputs: Sequence[Array], labels: Array, variance: float) -> Scores:
    """Score so that the mean is the coefficient of determination, 1 - squared error / variance.

    Args:
        outputs: one array [B, ...].
        labels: of the same size, [B, ...].
        variance: of the labels of the whole split.

    >>> r2([np.array([[1.0], [2.0]])], np.array([[1.0], [3.0]]), variance=1.0).tolist()
    [1.0, 0.0]
    """
    count = len(labels)
    found = outputs[0].reshape(count, -1).astype(np.float64)
    error = found - labels.reshape(count, -1).astype(np.float64)
    return np.asarray(1.0 - np.square(error).mean(axis=1) / max(variance, 1e-30), np.float64)


def sqnr(outputs: Sequence[Array], labels: Array) -> Scores:
    """Score one minus noise over signal against the float network's outputs, not below 0.

    The signal-to-quantization-noise ratio of a mean score s is -10 log10(1 - s) dB: ``sqnr_db``.

    Args:
        outputs: arrays [B, ...].
        labels: the float network's outputs, each flattened, side by side: [B, N].

    >>> sqnr([np.array([[2.0, 0.2]])], np.array([[2.0, 0.0]])).round(2).tolist()
    [0.99]
    """
    wanted = labels.astype(np.float64)
    noise = np.square(flattened(outputs).astype(np.float64) - wanted).sum(axis=1)
    signal = np.maximum(np.square(wanted).sum(axis=1), 1e-30)
    return np.asarray(np.maximum(0.0, 1.0 - noise / signal), np.float64)


def bits_per_character(outputs: Sequence[Array], labels: Array) -> Scores:
    """Score the share of a byte that the network's predictions save: 1 - bits / 8.

    The bits are the negative logarithm to base 2 of the probability that the next character had,
    the mean over those whose label is not ``NO_LABEL``: ``bits_of``.

    Args:
        outputs: one array of logits [B, T, K].
        labels: integers [B, T].

    >>> bits_per_character([np.zeros((1, 2, 4))], np.array([[NO_LABEL, 3]])).tolist()
    [0.75]
    """
    logits = outputs[0].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    numbers = labels.astype(np.int64)
    counts = numbers >= 0
    wanted = np.where(counts, numbers, 0)[..., None]
    chosen = np.take_along_axis(logits, wanted, axis=-1)[..., 0]
    bits = (np.log(np.exp(logits).sum(axis=-1)) - chosen) / np.log(2) * counts
    mean = bits.sum(axis=1) / np.maximum(1, counts.sum(axis=1))
    return np.asarray(1 - mean / BITS_OF_A_BYTE, np.float64)


def bits_of(score: float) -> float:
    """Return the bits per character of a mean score of ``bits_per_character``."""
    return BITS_OF_A_BYTE * (1 - score)


def flattened(outputs: Sequence[Array]) -> Array:
    """Return outputs [B, ...] flattened and side by side, [B, N]."""
    return np.concatenate([y.reshape(len(y), -1) for y in outputs], axis=1)


def sqnr_db(score: float) -> float:
    """Return the decibels of a mean score of ``sqnr``; infinite for 1.

    >>> sqnr_db(0.99), sqnr_db(1.0)
    (20.0, inf)
    """
    return float("inf") if score >= 1 else round(-10 * float(np.log10(1 - score)), 6)


def score_text(metric: str, score: float) -> str:
    """Return a mean score as tables show it: percent, decibels for ``sqnr``, bits.

    >>> score_text("top1", 0.9172), score_text("sqnr", 0.999), score_text("sqnr", 1.0)
    ('91.72 %', '30.0 dB', 'exact')
    >>> score_text("bits_per_character", 0.75)
    '2.000 bits'
    """
    if metric == BITS:
        return f"{bits_of(score):.3f} bits"
    if metric != SQNR:
        return f"{100 * score:.2f} %"
    return "exact" if score >= 1 else f"{sqnr_db(score):.1f} dB"
