"""Sensor recordings: their windows, their digest, their file, and damaged files."""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.models.data.recordings import Recordings, read_recordings, write_recordings
from edgedl.runtime.errors import BadInputError, IntegrityError
from edgedl.runtime.preprocess.sequence import SequencePreprocessing

LENGTHS = (5, 9, 6, 12)


def make(lengths=LENGTHS, channels=2, seed=0):
    """Return recordings of random values whose subjects are 1, 2, 3, 1, 2, ..."""
    rng = np.random.default_rng(seed)
    count = len(lengths)
    return Recordings(
        rng.normal(size=(sum(lengths), channels)).astype(np.float32),
        np.array(lengths, np.int64),
        rng.integers(0, 7, count),
        np.arange(count, dtype=np.int64) % 3 + 1,
    )


def assert_same(found, expected):
    for field in ("values", "lengths", "labels", "subjects"):
        one, other = getattr(found, field), getattr(expected, field)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


lengths_lists = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@settings(deadline=None, max_examples=30)
@given(lengths=lengths_lists, channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_recordings_are_slices_of_the_rows(lengths, channels, seed):
    split = make(lengths, channels, seed)
    assert len(split) == len(lengths)
    assert split.shape == (len(lengths), channels)
    parts = split.recordings()
    assert len(parts) == len(lengths)
    row = 0
    for part, length in zip(parts, lengths, strict=True):
        assert part.shape == (length, channels)
        for values in part:
            np.testing.assert_array_equal(values, split.values[row])
            row += 1
    assert row == len(split.values)


@settings(deadline=None, max_examples=40)
@given(
    extra=lengths_lists,
    channels=st.integers(1, 3),
    window=st.integers(1, 8),
    hop=st.integers(1, 9),
)
def test_windows_against_a_loop(extra, channels, window, hop):
    split = make([window + e - 1 for e in extra], channels)
    inputs, labels = [], []
    first = 0
    for length, label in zip(split.lengths, split.labels, strict=True):
        for start in range(0, length - window + 1, hop):
            inputs.append([split.values[first + start + i].tolist() for i in range(window)])
            labels.append(int(label))
        first += length
    cut = SequencePreprocessing(tuple("xyz"[:channels]), window, hop, 50.0)
    found, found_labels = split.windows(cut)
    assert (found.dtype, found_labels.dtype) == (np.float32, np.int64)
    assert found.tolist() == inputs
    assert found_labels.tolist() == labels


@pytest.mark.parametrize("place", [0, 1, 3])
def test_recording_shorter_than_a_window(refused, place):
    lengths = [9, 9, 9, 9]
    lengths[place] = 7
    cut = SequencePreprocessing(("x", "y"), window=8, hop=1, rate_hz=50.0)
    with refused(BadInputError, "7 rows", "a window has 8"):
        make(lengths).windows(cut)


@settings(deadline=None, max_examples=40)
@given(
    subjects=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    kept=st.frozensets(st.integers(0, 9), max_size=6),
    data=st.data(),
)
def test_of_subjects_against_a_loop(subjects, kept, data):
    kept |= {data.draw(st.sampled_from(subjects))}
    lengths = [2 + i % 4 for i in range(len(subjects))]
    split = replace(make(lengths), subjects=np.array(subjects, np.int64))
    before = split.digest()
    found = split.of_subjects(kept)
    places = [i for i in range(len(subjects)) if subjects[i] in kept]
    assert len(found) == len(places)
    originals = split.recordings()
    for recording, place in zip(found.recordings(), places, strict=True):
        np.testing.assert_array_equal(recording, originals[place])
    for field in ("lengths", "labels", "subjects"):
        expected = [int(getattr(split, field)[i]) for i in places]
        assert getattr(found, field).tolist() == expected
    assert split.digest() == before


def test_digest_is_sha256_of_the_four_arrays():
    split = make()
    content = b"".join(np.float32(v).tobytes() for row in split.values for v in row)
    for field in (split.lengths, split.labels, split.subjects):
        content += b"".join(int(v).to_bytes(8, "little", signed=True) for v in field)
    assert split.digest() == hashlib.sha256(content).hexdigest()


def test_digest_does_not_depend_on_storage():
    split = make()
    strided = np.repeat(np.asfortranarray(split.values), 2, axis=0)[::2]
    labels = np.repeat(split.labels, 2)[::2]
    assert replace(split, values=strided, labels=labels).digest() == split.digest()


@settings(deadline=None, max_examples=40)
@given(
    row=st.integers(0, sum(LENGTHS) - 1),
    channel=st.integers(0, 1),
    recording=st.integers(0, len(LENGTHS) - 1),
    bit=st.integers(0, 31),
)
def test_digest_sees_every_bit_and_every_field(row, channel, recording, bit):
    split = make()
    values = split.values.copy()
    values.view(np.uint32)[row, channel] ^= np.uint32(1 << bit)
    assert replace(split, values=values).digest() != split.digest()
    for field in ("labels", "subjects"):
        changed = getattr(split, field).copy()
        changed[recording] += 1
        assert replace(split, **{field: changed}).digest() != split.digest()


def test_digest_sees_where_recordings_end_and_their_order():
    split = make()
    moved = np.array([6, 8, 6, 12], np.int64)
    assert replace(split, lengths=moved).digest() != split.digest()
    swapped = replace(split, labels=split.subjects, subjects=split.labels)
    assert swapped.digest() != split.digest()
    parts = split.recordings()
    turned = Recordings(
        np.concatenate(parts[::-1]), split.lengths[::-1], split.labels[::-1], split.subjects[::-1]
    )
    assert turned.digest() != split.digest()


ROWS = np.zeros((6, 2), np.float32)
TWO = np.array([2, 4], np.int64)


@pytest.mark.parametrize(
    ("values", "lengths", "labels", "subjects", "word"),
    [
        (ROWS.astype(np.float64), TWO, TWO, TWO, "float64"),
        (ROWS.astype(np.int16), TWO, TWO, TWO, "int16"),
        (ROWS[:, 0], TWO, TWO, TWO, "[N, C]"),
        (ROWS[..., None], TWO, TWO, TWO, "(6, 2, 1)"),
        (ROWS[:5], TWO, TWO, TWO, "sum to 6, there are 5 rows"),
        (ROWS, TWO[:1], TWO[:1], TWO[:1], "sum to 2, there are 6 rows"),
        (ROWS, np.array([6, 0]), TWO, TWO, "lengths"),
        (ROWS, np.array([7, -1]), TWO, TWO, "lengths"),
        (ROWS, TWO, TWO[:1], TWO, "labels must be int64, one of each"),
        (ROWS, TWO, TWO, TWO[:0], "subjects must be int64"),
        (ROWS, TWO.astype(np.float64), TWO, TWO, "float64"),
        (ROWS, TWO, TWO.astype(np.int32), TWO, "int32"),
        (ROWS, TWO, TWO[None], TWO, "labels"),
        (ROWS[:0], TWO[:0], TWO[:0], TWO[:0], "there must be recordings"),
        (np.full((6, 2), np.nan, np.float32), TWO, TWO, TWO, "finite"),
        (ROWS, np.array([6]), TWO, TWO, "labels must be int64"),
    ],
    ids=["float64", "int16", "1-D", "3-D", "few rows", "many rows", "zero length",
         "negative length", "few labels", "no subjects", "float lengths",
         "int32 labels", "2-D labels", "nothing", "NaN", "few lengths"],
)  # fmt: skip
def test_arrays_that_are_no_recordings(refused, values, lengths, labels, subjects, word):
    with refused(BadInputError, word):
        Recordings(values, lengths, labels, subjects)


@pytest.fixture
def stored(tmp_path):
    """Write a file of two splits; return its path and the splits."""
    path = tmp_path / "new" / "folder" / "set.npz"
    splits = {"train": make(seed=1), "test": make((3, 1), seed=2)}
    write_recordings(path, splits)
    return path, splits


def test_written_splits_read_back(stored):
    path, splits = stored
    assert os.listdir(path.parent) == ["set.npz"]
    for name, split in splits.items():
        found = read_recordings(path, name)
        assert_same(found, split)
        assert found.digest() == split.digest()


def test_odd_values_read_back_bit_for_bit(tmp_path):
    values = np.array([[0.0, -0.0], [1e-45, -3.4e38], [1.0, 3.4e38]], np.float32)
    one = np.ones(1, np.int64)
    split = Recordings(values, 3 * one, one, one)
    write_recordings(tmp_path / "set.npz", {"test": split})
    found = read_recordings(tmp_path / "set.npz", "test").values
    np.testing.assert_array_equal(found.view(np.uint32), values.view(np.uint32))


def test_second_write_replaces_the_first(refused, stored):
    path, _ = stored
    write_recordings(path, {"test": make(seed=3)})
    assert_same(read_recordings(path, "test"), make(seed=3))
    with refused(IntegrityError, "'train'"):
        read_recordings(path, "train")


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


DAMAGES = {
    "flipped": flipped,
    "empty": lambda c: b"",
    "zip magic": lambda c: b"PK\x03\x04",
    "text": lambda c: b"not a zip file",
    "half": lambda c: c[: len(c) // 2],
    "last byte": lambda c: c[:-1],
    "head": lambda c: c[100:],
    "zeros": lambda c: bytes(len(c)),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_file(refused, stored, damage):
    path, _ = stored
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with refused(IntegrityError, "set.npz", "delete it and fetch it again"):
        for name in ("train", "test"):
            read_recordings(path, name)


@pytest.mark.parametrize("name", ["validation", "", "train_values", "../train"])
def test_split_that_is_not_in_the_file(refused, stored, name):
    with refused(IntegrityError, "set.npz", f"'{name}'"):
        read_recordings(stored[0], name)


def test_file_that_is_not_there(refused, tmp_path):
    with refused(IntegrityError, "gone.npz"):
        read_recordings(tmp_path / "gone.npz", "test")


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("field", ["values", "lengths", "labels", "subjects"])
@pytest.mark.parametrize("kind", ["missing", "pickled", "of another length"])
def test_file_with_one_bad_field(refused, tmp_path, field, kind):
    arrays = {f: getattr(make(), f) for f in ("values", "lengths", "labels", "subjects")}
    bad = {"missing": None, "pickled": np.array([Boom()], object)}
    arrays[field] = bad.get(kind, arrays[field][:-1])
    kept = {f"test_{name}": array for name, array in arrays.items() if array is not None}
    np.savez(tmp_path / "set.npz", **kept)
    with refused(IntegrityError, "set.npz", "'test'"):
        read_recordings(tmp_path / "set.npz", "test")


def test_windows_of_other_channels(refused):
    cut = SequencePreprocessing(("x", "y", "z"), 4, 2, 50.0)
    with refused(BadInputError, "have 2 channels, a window has 3", "x, y, z"):
        make().windows(cut)


def test_nobody_of_the_subjects(refused):
    with refused(BadInputError, "no recording of the subjects [99]"):
        make().of_subjects(frozenset({99}))
