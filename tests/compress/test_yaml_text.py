"""YAML with limits: aliases and deep nesting are refused before anything is built of them."""

import pytest

from edgedl.compress.yaml_text import MOST_LEVELS, read_yaml
from edgedl.runtime.errors import BadInputError

BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijklmn", "bcdefghijklmno", strict=True)
)


def test_values_and_their_lines() -> None:
    tree, content = read_yaml("a: 1\nb: [x, {c: 2.5}]\n", "x.yaml")
    assert content == {"a": 1, "b": ["x", {"c": 2.5}]}
    assert tree is not None
    assert [key.start_mark.line for key, _ in tree.value] == [0, 1]
    assert read_yaml("", "x.yaml") == (None, None)


@pytest.mark.parametrize("deep", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(deep: str) -> None:
    with pytest.raises(BadInputError, match=f"x.yaml, line 1: nested deeper than {MOST_LEVELS}"):
        read_yaml(deep * 100_000, "x.yaml")
    fits = "[" * MOST_LEVELS + "]" * MOST_LEVELS
    assert read_yaml(fits, "x.yaml")[1] is not None


def test_aliases_of_aliases_are_refused_at_once() -> None:
    with pytest.raises(BadInputError, match=r"x.yaml, line 2: an alias \(\*a\) is not read"):
        read_yaml(BOMB, "x.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "x.yaml, line 1: not YAML"),
        ("a: 1\n\tb: 2", "line 2: not YAML"),
        ("a: 2026-02-31", "not YAML"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2: the key 'c' is given twice"),
        ("? [a, b]\n: 1", "not YAML"),
        ("a: !!bool x", "not YAML"),
        ('a: !!int ""', "not YAML"),
        ("a: !!timestamp x", "not YAML"),
        (f"a: 1{':00' * 180}.0", "not YAML"),
        ("a: !!python/object:os.system x", "line 1: not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        read_yaml(text, "x.yaml")
