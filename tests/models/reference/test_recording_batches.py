"""Batches of windows, found again in the recordings they were cut from.

Every row of the recordings holds its own number, so that a window tells where it came from.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.models.data.recordings import Recordings
from edgedl.models.reference.recording_batches import SCALE_DEVIATION, RecordingBatches
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.sequence import SequencePreprocessing

AXES = ("ax", "ay", "az", "wx", "wy", "wz")


def numbered(lengths, channels=1):
    """Return recordings whose rows are numbered through; each recording has its own label."""
    rows = np.arange(sum(lengths), dtype=np.float32)
    count = len(lengths)
    return Recordings(
        np.repeat(rows[:, None], channels, axis=1),
        np.array(lengths, np.int64),
        10 + np.arange(count, dtype=np.int64),
        np.ones(count, np.int64),
    )


def random(lengths, channels=6, seed=0):
    rng = np.random.default_rng(seed)
    count = len(lengths)
    return Recordings(
        rng.normal(size=(sum(lengths), channels)).astype(np.float32),
        np.array(lengths, np.int64),
        np.arange(count, dtype=np.int64),
        np.ones(count, np.int64),
    )


def cut_of(window, hop=1, columns=("x",)):
    return SequencePreprocessing(columns, window, hop, 50.0)


def legal_starts(lengths, window):
    """Return {first row of a window: label of its recording} by a loop."""
    found, row = {}, 0
    for index, length in enumerate(lengths):
        for place in range(length):
            if place + window <= length:
                found[row + place] = 10 + index
        row += length
    return found


def draw(batches, epochs=1, seed=0):
    """Return all inputs [N, T, C] and labels [N] of some epochs as numpy arrays."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [batch for _ in range(epochs) for batch in batches.epoch(generator)]
    return tuple(torch.cat(parts).numpy() for parts in zip(*drawn, strict=True))


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    window=st.integers(1, 6),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_window_is_a_piece_of_one_recording(lengths, window, channels, seed):
    lengths = [*lengths, window]  # at least one recording is long enough
    legal = legal_starts(lengths, window)
    columns = AXES[:channels]
    batches = RecordingBatches(numbered(lengths, channels), cut_of(window, 1, columns), 16, 0.0)
    inputs, labels = draw(batches, 3, seed)
    for x, label in zip(inputs, labels, strict=True):
        start = int(x[0, 0])
        assert legal[start] == label
        expected = [[start + i] * channels for i in range(window)]
        assert x.tolist() == expected


@pytest.mark.parametrize("lengths", [(5, 3, 9, 4), (4,), (1, 4, 1), (3, 12, 3), (4, 4, 4)])
def test_every_place_is_drawn_and_no_other(lengths):
    batches = RecordingBatches(numbered(lengths), cut_of(4, hop=3), 50, 0.0)
    inputs, _ = draw(batches, 10)
    assert {int(x[0, 0]) for x in inputs} == set(legal_starts(lengths, 4))


def test_places_are_drawn_evenly():
    batches = RecordingBatches(numbered((8, 4, 7)), cut_of(4), 1000, 0.0)
    inputs, _ = draw(batches, 10)
    _, counts = np.unique(inputs[:, 0, 0], return_counts=True)
    assert len(counts) == 10
    # 10 000 draws: 1000 each, with a deviation of 30.
    assert np.abs(counts - 1000).max() < 150


def test_recording_shorter_than_a_window_is_never_drawn():
    lengths = (3, 20, 2, 3)
    _, labels = draw(RecordingBatches(numbered(lengths), cut_of(4), 8, 0.0), 10)
    assert set(labels) == {11}


@pytest.mark.parametrize(
    ("lengths", "hop", "size", "expected"),
    [
        ((23,), 1, 5, 4),
        ((23,), 4, 5, 1),
        ((23, 13, 3), 1, 5, 6),
        ((23, 13), 3, 2, 5),
        ((4,), 50, 64, 1),
    ],
)
def test_length_of_an_epoch(lengths, hop, size, expected):
    starts = len(legal_starts(lengths, 4))
    assert expected == max(1, int(starts / hop) // size)
    batches = RecordingBatches(numbered(lengths), cut_of(4, hop), size, 0.0)
    drawn = list(batches.epoch(torch.Generator().manual_seed(0)))
    assert len(batches) == len(drawn) == expected
    assert all(len(x) == len(y) == size for x, y in drawn)


@pytest.mark.parametrize("rotation", [0.0, 0.2])
def test_values_types_and_shapes(rotation):
    batches = RecordingBatches(random((30, 40)), cut_of(8, 2, AXES), 7, rotation)
    for x, y in batches.epoch(torch.Generator().manual_seed(0)):
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert (x.shape, y.shape) == ((7, 8, 6), (7,))
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("rotation", [0.0, 0.2])
def test_generator_decides(rotation):
    batches = RecordingBatches(random((30, 40)), cut_of(8, 2, AXES), 7, rotation)
    torch.manual_seed(1)
    one, labels = draw(batches, 2, seed=5)
    torch.manual_seed(2)
    again, same_labels = draw(batches, 2, seed=5)
    other, _ = draw(batches, 2, seed=6)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(labels, same_labels)
    assert (one != other).any()
    assert (one[: len(one) // 2] != one[len(one) // 2 :]).any()


@pytest.mark.parametrize("rotation", [0.0, 0.5])
def test_recordings_stay_as_they_are(rotation):
    split = random((30, 40))
    before = split.digest()
    batches = RecordingBatches(split, cut_of(8, 2, AXES), 7, rotation)
    for x, _ in batches.epoch(torch.Generator().manual_seed(0)):
        x.zero_()
    assert split.digest() == before


def turned_pairs(channels=6, rotation=0.1, count=2000, seed=0):
    """Yield (vectors before, vectors after) [T * C / 3, 3] of windows that fill a recording."""
    split = random([5] * 40, channels, seed)
    columns = tuple(f"c{i}" for i in range(channels))
    batches = RecordingBatches(split, cut_of(5, 1, columns), count, rotation)
    inputs, labels = draw(batches, 1, seed)
    originals = split.recordings()
    for x, label in zip(inputs, labels, strict=True):
        yield originals[label].reshape(-1, 3).astype(float), x.reshape(-1, 3).astype(float)


@pytest.mark.parametrize("channels", [3, 6, 9])
@pytest.mark.parametrize("rotation", [0.05, 1.0, 3.0])
def test_norms_keep_up_to_one_scale_per_window(channels, rotation):
    for before, after in turned_pairs(channels, rotation, count=200):
        ratios = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


def fitted(before, after):
    """Return the scale and the matrix that turn ``before`` into ``after``, by least squares."""
    matrix = np.linalg.lstsq(before, after, rcond=None)[0]
    np.testing.assert_allclose(before @ matrix, after, atol=1e-4)
    scale = np.cbrt(np.linalg.det(matrix))
    return scale, matrix / scale


@pytest.mark.parametrize("channels", [3, 6])
def test_one_rotation_turns_all_sensors_of_a_window(channels):
    for before, after in turned_pairs(channels, 0.7, count=200):
        scale, matrix = fitted(before, after)
        assert scale > 0  # a rotation, no mirror image
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-4)


def rotation_vector(matrix):
    """Return the logarithm of a rotation by less than half a turn."""
    angle = np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))
    skew = (matrix - matrix.T) * angle / (2 * np.sin(angle))
    return np.array([skew[2, 1], skew[0, 2], skew[1, 0]])


def test_rotations_and_scales_have_their_deviations():
    pairs = [fitted(*pair) for pair in turned_pairs(rotation=0.15)]
    scales = np.array([scale for scale, _ in pairs])
    vectors = np.array([rotation_vector(matrix) for _, matrix in pairs])
    # 2000 windows: the mean is known to 0.022 deviations, the deviation to 1.6 %.
    assert abs(scales.mean() - 1) < 5 * 0.022 * SCALE_DEVIATION
    np.testing.assert_allclose(scales.std(), SCALE_DEVIATION, rtol=0.08)
    assert np.abs(vectors.mean(0)).max() < 5 * 0.022 * 0.15
    np.testing.assert_allclose(vectors.std(0), 0.15, rtol=0.08)
    related = np.corrcoef(np.column_stack([scales, vectors]).T) - np.eye(4)
    assert np.abs(related).max() < 5 * 0.022


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_channels_that_are_no_triples_cannot_be_turned(refused, channels):
    split, cut = random((20,), channels), cut_of(4, 1, AXES[:channels])
    with refused(BadInputError, f"{channels} channels", "x, y, z"):
        RecordingBatches(split, cut, 2, 0.1)
    x, _ = next(RecordingBatches(split, cut, 2, 0.0).epoch(torch.Generator()))
    assert x.shape == (2, 4, channels)
