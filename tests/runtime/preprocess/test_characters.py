"""Text as numbers of characters."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.preprocess.preprocessing import Preprocessing

ALPHABET = "\ufffd\n abcde"
CHARACTERS = CharacterPreprocessing(ALPHABET, 12)


@given(st.text(ALPHABET[1:], min_size=1, max_size=12))
def test_there_and_back(text):
    numbers = CHARACTERS.encode(text)
    assert numbers.shape == (1, len(text))
    assert [ALPHABET[n] for n in numbers[0]] == list(text)
    assert CHARACTERS.decode(numbers[0]) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a" * 13, "13 characters, the network sees 12"),
        ("abx", "character 3 of the text is 'x'"),
        ("\ufffd", "character 1"),
    ],
)
def test_what_the_network_cannot_take(text, says):
    with pytest.raises(BadInputError, match=says):
        CHARACTERS.encode(text)


def test_it_is_data_of_the_manifest():
    kept = msgspec.json.encode(CHARACTERS)
    assert msgspec.json.decode(kept, type=Preprocessing) == CHARACTERS


@pytest.mark.parametrize(("alphabet", "context"), [("aa", 3), ("a", 3), ("ab", 0)])
def test_settings_that_mean_nothing(alphabet, context):
    with pytest.raises(BadInputError, match=r"alphabet|context"):
        CharacterPreprocessing(alphabet, context)


def test_a_file(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("a bad\n", encoding="utf-8")
    (numbers,) = CHARACTERS.inputs_of(path).arrays
    assert CHARACTERS.decode(numbers[0]) == "a bad"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadInputError, match=r"prompt\.txt is not a readable text file"):
        CHARACTERS.read(path)
