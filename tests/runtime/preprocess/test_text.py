"""Text: lines become tokens, as the library's own call makes them."""

import sys

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.preprocess import text
from edgedl.runtime.preprocess.text import TextPreprocessing

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "mat", "##s", "dog"]


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def test_lines_are_cut_and_filled(tokenizer):
    found = TextPreprocessing(tokenizer.to_str(), 6, 0, ("ids", "mask", "types"))
    ids, mask, types = found(["the cats", "the dog sat on the mat", "bird"])
    assert ids.dtype == np.int64
    assert ids.tolist() == [[2, 4, 5, 9, 3, 0], [2, 4, 10, 6, 7, 3], [2, 1, 3, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6, [1, 1, 1, 0, 0, 0]]
    assert not types.any()


def test_tokens_are_the_librarys_own(tokenizer):
    lines = ["the cat sat on the mat", "dogs", "", "mats on the dog the cats sat on on on"]
    own = Tokenizer.from_str(tokenizer.to_str())
    own.enable_truncation(8)
    own.enable_padding(length=8, pad_id=0)
    expected = own.encode_batch(lines)
    ids, mask = TextPreprocessing(tokenizer.to_str(), 8, 0, ("ids", "mask"))(lines)
    assert ids.tolist() == [line.ids for line in expected]
    assert mask.tolist() == [line.attention_mask for line in expected]


def test_a_tokenizer_that_fills_up_itself_does_not_fill_twice(tokenizer):
    filling = Tokenizer.from_str(tokenizer.to_str())
    filling.enable_padding(length=20, pad_id=1)
    (ids,) = TextPreprocessing(filling.to_str(), 4)(["cat"])
    assert ids.tolist() == [[2, 5, 3, 0]]


def test_a_file_has_a_sample_for_each_line(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    path.write_text("\ufeffthe cat\n\n  \nthe dog\n", encoding="utf-8")
    found = TextPreprocessing(tokenizer.to_str(), 5)
    (ids,), parts = found.inputs_of(path)
    assert ids.tolist() == [[2, 4, 5, 3, 0], [2, 4, 10, 3, 0]]
    assert parts == ("line 1", "line 4")
    assert found.from_raw(ids) is ids


def test_what_cannot_be_read(tmp_path, refused, tokenizer, monkeypatch):
    found = TextPreprocessing(tokenizer.to_str(), 5)
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe\xfa")
    with refused(BadInputError, "a.txt is not a readable text file"):
        found.inputs_of(path)
    path.write_text("  \n\n")
    with refused(BadInputError, "a.txt holds no line of text"):
        found.inputs_of(path)
    with refused(BadInputError, "the tokenizer cannot be read"):
        TextPreprocessing("{}", 5)(["cat"])
    monkeypatch.setattr(text, "LONGEST", 2)
    with refused(BadInputError, "a.txt has more than"):
        found.inputs_of(path)


def test_settings_that_cannot_be(refused, tokenizer):
    with refused(BadInputError, "length must be at least 1"):
        TextPreprocessing(tokenizer.to_str(), 0)
    with refused(BadInputError, "at least 'ids'"):
        TextPreprocessing(tokenizer.to_str(), 4, 0, ())


def test_without_the_library(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with refused(BackendUnavailableError, "tokenizers is missing", "[text]"):
        TextPreprocessing('{"not": "read before"}', 4)(["cat"])
