"""Read data sets in their authors' files: idx, CIFAR-10, smart watch, addresses, articles."""

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedl.models.data.corpus import UNKNOWN, Corpus
from edgedl.models.data.images import LabelledImages
from edgedl.models.data.plain_pickle import load_plain_pickle
from edgedl.models.data.recordings import Recordings
from edgedl.models.data.texts import LabelledTexts
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.progress import SILENT, Progress

ImageSplits = dict[str, LabelledImages]


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, gzipped or not.

    Source: LeCun, Cortes, Burges, "The MNIST database", section "File formats".

    Raises:
        BadInputError: when the file is not idx, not uint8, or cut short.
    """
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{path} is a damaged gzip file ({error})") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise BadInputError(f"{path} is not an idx file of unsigned bytes")
    ndim = content[3]
    header = 4 + 4 * ndim
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    if len(content) - header != math.prod(shape):
        found = max(0, len(content) - header)
        raise BadInputError(f"{path} holds {found} values, its header promises the shape {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def fashion_mnist_from_idx(folder: Path, progress: Progress = SILENT) -> ImageSplits:
    """Read ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`` below a folder."""
    splits = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        progress.step(f"read {stem}")
        images = read_idx(_find(folder, f"{stem}-images-idx3-ubyte*"))
        labels = read_idx(_find(folder, f"{stem}-labels-idx1-ubyte*"))
        splits[split] = LabelledImages(images[..., None], labels.astype(np.int64))
    return splits


def cifar10_from_batches(folder: Path, progress: Progress = SILENT) -> ImageSplits:
    """Read the python version of CIFAR-10 (``data_batch_1..5`` and ``test_batch``).

    The files are pickles; only plain containers, bytes and numpy arrays are unpickled.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    parts: dict[str, list[LabelledImages]] = {"train": [], "test": []}
    names = [("train", f"data_batch_{i}") for i in range(1, 6)] + [("test", "test_batch")]
    for split, name in names:
        progress.step(f"read {name}")
        parts[split].append(_load_batch(_find(folder, name)))
    return {split: _concatenate(pieces) for split, pieces in parts.items()}


# Every subject did every exercise with both arms; these three people are for the test alone.
WATCH_TEST_SUBJECTS = frozenset({8, 9, 10})


def watch_from_npy(folder: Path, progress: Progress = SILENT) -> dict[str, Recordings]:
    """Read ``watch_dataset.npy``, 140 recordings of 10 people, split by person.

    The file is a pickle; only plain containers and numpy arrays are unpickled.

    Source: Burns, Leung, Hardisty, Whyne, Henry, McLachlin, "Shoulder physiotherapy exercise
    recognition: machine learning the inertial signals from a smartwatch", 2018.
    """
    progress.step("read watch_dataset.npy")
    path = _find(folder, "watch_dataset.npy")
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            content = load_plain_pickle(file)
        series = [np.asarray(values) for values in content["X"]]
        if any(np.abs(values).max() > np.finfo(np.float32).max for values in series):
            raise ValueError("a value is larger than float32 can hold")
        everyone = Recordings(
            np.concatenate(series).astype(np.float32),
            np.asarray([len(values) for values in series], np.int64),
            _integers(content["y"]),
            _integers(content["subject"]),
        )
        others = frozenset(int(s) for s in everyone.subjects) - WATCH_TEST_SUBJECTS
        return {
            "train": everyone.of_subjects(others),
            "test": everyone.of_subjects(WATCH_TEST_SUBJECTS),
        }
    except Exception as error:
        # A damaged pickle can raise anything at all; each means that this is not the file.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInputError(f"{path} is not the smart-watch data set ({reason})") from error


# Of the addresses in the order of their years, every 48th is for the test alone.
SOTU_TEST = slice(12, None, 48)
# The characters that the training texts have ten times or more.
SOTU_ALPHABET = (
    UNKNOWN + "\n !\"$%&'()+,-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_"
    "abcdefghijklmnopqrstuvwxyz\u00b0\u2014\u2019\u201c\u201d"
)


def sotu_from_texts(folder: Path, progress: Progress = SILENT) -> dict[str, Corpus]:
    """Read the State of the Union addresses, ``YEAR_NAME_PARTY.txt``.

    Raises:
        BadInputError: there is no such file, or one is no text in UTF-8.
    """
    progress.step("read the addresses")
    paths = sorted(p for p in folder.rglob("[12][0-9][0-9][0-9]_*.txt") if p.is_file())
    if not paths:
        raise BadInputError(f"no file 'YEAR_NAME_PARTY.txt' below {folder}")
    try:
        texts = [path.read_text(encoding="utf-8") for path in paths]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"the addresses below {folder} cannot be read ({error})") from error
    test = texts[SOTU_TEST]
    kept = [text for text in texts if text not in test]
    return {"train": Corpus.of(kept, SOTU_ALPHABET), "test": Corpus.of(test, SOTU_ALPHABET)}


REUTERS_CLASSES = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
# Names of columns, their types, their roles.
_TAB_HEADER = 3


def reuters_from_tab(folder: Path, progress: Progress = SILENT) -> dict[str, LabelledTexts]:
    """Read ``reuters-r8-{train,test}.tab``: articles of the eight largest classes.

    Source: Lewis, "Reuters-21578 text categorization test collection", 1997 (ModApte split);
    Cardoso-Cachopo, "Improving methods for single-label text categorization", 2007 (R8).
    """
    splits = {}
    for split in ("train", "test"):
        progress.step(f"read {split}")
        path = _find(folder, f"reuters-r8-{split}.tab")
        splits[split] = _read_tab(path)
    return splits


def _read_tab(path: Path) -> LabelledTexts:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter="\t") if row][_TAB_HEADER:]
        numbers = {category: i for i, category in enumerate(REUTERS_CLASSES)}
        labels = [numbers[category] for category, _ in rows]
    except (KeyError, ValueError, csv.Error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInputError(f"{path} is not the table of Reuters articles ({reason})") from error
    texts = tuple(" ".join(text.split()) for _, text in rows)
    return LabelledTexts(texts, np.asarray(labels, np.int64))


def _integers(values: Any) -> npt.NDArray[np.int64]:
    """Return whole numbers of any type as int64."""
    found = np.asarray(values)
    whole = found.astype(np.int64)
    if (whole != found).any():
        raise ValueError("a label or subject is not a whole number")
    return whole


def _load_batch(path: Path) -> LabelledImages:
    try:
        with path.open("rb") as file:
            batch = load_plain_pickle(file)
        data = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(batch[b"labels"], np.int64)
        return LabelledImages(data.transpose(0, 2, 3, 1), labels)
    except Exception as error:
        # A damaged pickle can raise anything at all; each means that this is no batch.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInputError(f"{path} is not a CIFAR-10 batch ({reason})") from error


def _find(folder: Path, pattern: str) -> Path:
    found: Iterator[Path] = (p for p in folder.rglob(pattern) if p.is_file())
    path = next(found, None)
    if path is None:
        raise BadInputError(f"no file '{pattern}' below {folder}")
    return path


def _concatenate(parts: list[LabelledImages]) -> LabelledImages:
    return LabelledImages(
        np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts])
    )
