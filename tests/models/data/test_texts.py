"""Texts with labels: their words and tokens, their files, and Reuters R8 from its tables."""

import csv
import json
import re

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgedl.models.data import datasets
from edgedl.models.data.canonical import reuters_from_tab
from edgedl.models.data.datasets import cached_path, load_texts, store
from edgedl.models.data.reuters import REUTERS
from edgedl.models.data.texts import (
    LabelledTexts,
    frequent_words,
    read_texts,
    word_tokenizer,
    write_texts,
)
from edgedl.runtime.errors import BadInputError, IntegrityError

ARTICLES = {
    "train": [("earn", "net profit of mln dlrs "), ("acq", 'offer for "a b" shares ')],
    "test": [("grain", "tonnes of wheat ")],
}


def texts(*lines: str) -> LabelledTexts:
    return LabelledTexts(lines, np.arange(len(lines)))


@pytest.fixture
def folder(tmp_path):
    """The tables of a small set, as published: two more rows of header, an empty line."""
    for split, rows in ARTICLES.items():
        with (tmp_path / f"reuters-r8-{split}.tab").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerows([("Category", "Text"), ("d", "string"), ("class", "")])
            writer.writerows(rows)
            file.write("\n")
    return tmp_path


def test_reuters_from_its_tables(folder):
    splits = reuters_from_tab(folder)
    assert splits["train"].texts == ("net profit of mln dlrs", 'offer for "a b" shares')
    assert [REUTERS.classes[i] for i in splits["train"].labels] == ["earn", "acq"]
    assert splits["test"].texts == ("tonnes of wheat",)


@pytest.mark.parametrize(
    ("row", "word"),
    [("sport\ta match\n", "sport"), ("earn\n", "2"), ("earn\ta\tb\n", "2")],
)
def test_other_tables_are_refused(refused, folder, row, word):
    with (folder / "reuters-r8-test.tab").open("a") as file:
        file.write(row)
    with refused(BadInputError, "reuters-r8-test.tab", "not the table of Reuters", word):
        reuters_from_tab(folder)


def test_missing_table(refused, folder):
    (folder / "reuters-r8-test.tab").unlink()
    with refused(BadInputError, "no file 'reuters-r8-test.tab'"):
        reuters_from_tab(folder)


@pytest.fixture
def toy(monkeypatch, folder):
    """A set as small as that, which can be stored."""
    from dataclasses import replace

    splits = reuters_from_tab(folder)
    record = replace(
        REUTERS,
        name="toy",
        sizes={"train": 2, "test": 1},
        digests={name: split.digest() for name, split in splits.items()},
    )
    monkeypatch.setitem(datasets.DATASETS, "toy", record)
    return splits


def test_store_and_load(refused, toy):
    with refused(BadInputError, "edgedl data fetch toy"):
        load_texts("toy", "test")
    assert store("toy", toy) == cached_path("toy")
    for name, split in toy.items():
        found = load_texts("toy", name)
        assert found.texts == split.texts
        np.testing.assert_array_equal(found.labels, split.labels)
    with refused(BadInputError, "no split 'train_10k'"):
        load_texts("toy", "train_10k")
    with refused(BadInputError, "cifar10 holds no texts"):
        load_texts("cifar10", "train")


@pytest.mark.parametrize("change", ["text", "label", "count"])
def test_another_set_is_not_stored(refused, cache, toy, change):
    first, second = toy["train"].texts
    labels = toy["train"].labels
    changed = {
        "text": LabelledTexts((first, second.upper()), labels),
        "label": LabelledTexts((first, second), labels[::-1].copy()),
        "count": LabelledTexts((first,), labels[:1]),
    }[change]
    with refused(IntegrityError, "toy train"):
        store("toy", {**toy, "train": changed})
    assert not cache.exists()


def test_any_text_survives_its_file(tmp_path):
    split = texts("", "Zürich 北京", "a\u2028b\rc")
    write_texts(tmp_path / "a.npz", {"test": split})
    found = read_texts(tmp_path / "a.npz", "test")
    assert found.texts == split.texts
    assert found.digest() == split.digest()
    assert found.shape == (3,)


def test_broken_splits_are_named(refused):
    with refused(BadInputError, "2 texts", "[3]"):
        LabelledTexts(("a", "b"), np.arange(3))
    with refused(BadInputError, "int32"):
        LabelledTexts(("a", "b"), np.arange(2, dtype=np.int32))
    with refused(BadInputError, "text 1 has a line break"):
        texts("a", "b\nc")


def test_tokens_are_words_in_their_order():
    words = frequent_words(["the ship and the wheat", "the wheat"], 3)
    assert words == ["the", "wheat", "and"]
    tokenizer = Tokenizer.from_str(word_tokenizer(words))
    found = tokenizer.encode("The 3 WHEAT-ships; and [MASK]: wheat's").ids
    # "[MASK]" in a text is a mark; the others are words, parted by all that is no letter.
    assert found == [3, 1 + 3, 1, 5, 2, 4, 1]


def test_reuters_words_are_the_tokenizers():
    numbers = json.loads(word_tokenizer(REUTERS.words))["model"]["vocab"]
    assert len(numbers) == REUTERS.network_arguments["vocabulary"] == 6000
    assert [numbers[t] for t in ("[PAD]", "[UNK]", "[MASK]", "the", "of")] == [0, 1, 2, 3, 4]
    assert all(re.fullmatch("[a-z]+", word) for word in REUTERS.words)
