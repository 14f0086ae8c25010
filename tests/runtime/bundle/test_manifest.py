"""The manifest's records are strict and survive a round trip."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedl.runtime.bundle.certificates import Parity
from edgedl.runtime.bundle.manifest import FileRecord, HistoryEntry, Manifest, TensorSpec
from edgedl.runtime.errors import BadInputError

# Objects whose keys are free: file names, package names, a stage's settings.
FREE = {"files", "toolchain", "settings"}
REQUIRED = tuple(f.name for f in msgspec.structs.fields(Manifest) if f.required)


def decode(content: Any) -> Manifest:
    return msgspec.json.decode(json.dumps(content), type=Manifest)


def records(content: Any, key: str = "") -> list[dict[str, Any]]:
    """Return every object of the JSON that is a record, the objects of lists included."""
    if isinstance(content, list):
        return [r for item in content for r in records(item)]
    if not isinstance(content, dict):
        return []
    found = [r for name, item in content.items() for r in records(item, name)]
    return found if key in FREE else [content, *found]


@pytest.fixture
def content(manifest) -> Any:
    return json.loads(msgspec.json.encode(manifest))


def test_round_trip(manifest):
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


def test_unknown_key_is_refused_in_every_record(content):
    kinds = set()
    for record in records(content):
        kinds.add(frozenset(record))
        record["colour"] = 1
        with pytest.raises(msgspec.ValidationError, match="colour"):
            decode(content)
        del record["colour"]
    # manifest, task, tensor, preprocessing, artifact, parity, output, certificate, layer,
    # agreement, file, history, sizes
    assert len(kinds) == 14
    decode(content)


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_key_is_refused(content, key):
    del content[key]
    with pytest.raises(msgspec.ValidationError, match=key):
        decode(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 1),
        (("schema_version",), "2"),
        (("name",), None),
        (("classes",), []),
        (("artifacts", 0, "backend"), 1),
        (("artifacts", 0, "precision"), None),
        (("artifacts", 0, "golden_tolerances"), ["0.1"]),
        (("artifacts", 0, "inputs", 0, "shape"), [1, "N"]),
        (("artifacts", 0, "inputs", 0, "shape"), [1.5]),
        (("files", "golden.npz", "size_bytes"), 1.5),
        (("preprocessing", "mode"), "CMYK"),
        (("preprocessing", "type"), "audio"),
        (("history", 0, "settings", "samples"), [512]),
    ],
)
def test_wrong_value_is_refused(content, path, value):
    place = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(msgspec.ValidationError):
        decode(content)


def test_records_cannot_be_changed(manifest):
    with pytest.raises(AttributeError):
        manifest.name = "other"
    with pytest.raises(AttributeError):
        manifest.artifacts[0].golden_tolerances = (1e9,)


text = st.text('aZ_/.0 "\\\n\x7f\u00e9\u20ac\U0001f600', max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
records_of_any_kind = st.one_of(
    st.builds(
        TensorSpec,
        name=text,
        shape=st.lists(st.none() | st.integers(0, 2**40), max_size=5).map(tuple),
        dtype=st.sampled_from(["float32", "int8"]),
        scale=st.none() | finite,
        zero_point=st.none() | st.integers(-128, 127),
    ),
    st.builds(FileRecord, size_bytes=st.integers(0, 2**53), sha256=text),
    st.builds(
        HistoryEntry,
        stage=text,
        settings=st.dictionaries(
            text, st.none() | st.booleans() | st.integers(-(2**63), 2**63) | finite | text
        ),
    ),
    st.builds(
        Parity,
        samples=st.integers(0, 10**6),
        max_abs_error=finite,
        mean_abs_error=finite,
        mean_lsb_error=st.none() | finite,
        prediction_agreement=st.none() | finite,
        float32_agreement=st.none() | finite,
        runtime=text,
    ),
)


@settings(deadline=None, max_examples=60)
@given(record=records_of_any_kind)
def test_any_record_survives_the_round_trip(record):
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0.5,), (0.2, 0.2, 0.2), "has 3 channels, 1 means and 3 deviations"),
        ((0.5, 0.5, 0.5), (), "has 3 channels, 3 means and 0 deviations"),
        ((0.5, 0.5, 0.5), (0.2, 0.0, 0.2), "a deviation of tensor 'x' is 0"),
    ],
)
def test_means_and_deviations_that_cannot_be_applied(mean, std, words) -> None:
    with pytest.raises(BadInputError, match=words):
        TensorSpec("x", (1, 8, 8, 3), "int8", 0.1, 0, "NHWC", mean, std)
