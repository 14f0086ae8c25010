"""What rows of several bundles are called, and what they are held against."""

from pathlib import Path

import pytest

from edgedl.compress.pack import CompressedModel
from edgedl.runtime.errors import BadInputError
from edgedl.tools.entries import (
    PARENT,
    Entry,
    bundle_names,
    find_entries,
    float32_of,
    put_baseline_first,
)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["one/bundle"], [""]),
        (["one", "two"], ["one", "two"]),
        (["one/bundle", "two/bundle"], ["one", "two"]),
        (["one/bundle", "two/other"], ["bundle", "other"]),
        (["one/bundle", "two/bundle", "two/other"], ["one-bundle", "two-bundle", "two-other"]),
        (["one/bundle", "one/bundle"], None),
    ],
)
def test_names_of_bundles(tmp_path: Path, folders: list[str], names: list[str] | None) -> None:
    paths = [tmp_path / folder for folder in folders]
    if names is not None:
        assert bundle_names(paths) == names
    else:
        with pytest.raises(BadInputError, match=r"given twice.*one/bundle"):
            bundle_names(paths)


def test_a_file_is_held_against_the_parents_or_its_bundles_float32(
    compressed: CompressedModel,
) -> None:
    entries, _ = find_entries([compressed.bundle])
    own = {entry.name: entry for entry in entries}
    assert float32_of(own["ort-int8"], entries) == own["ort-float32"]
    # A file by itself says nothing of its speed.
    assert float32_of(own["ort-float32"], entries) is None
    parents = [
        Entry(f"{PARENT}{e.name}", e.bundle, e.artifact)
        for e in entries
        if e.artifact.precision == "float32"
    ]
    for name in ("ort-int8", "ort-float32"):
        found = float32_of(own[name], [*parents, *entries])
        assert found is not None
        assert found.name == "parent:ort-float32"


def test_the_baseline_is_a_float32_file_that_runs_here(compressed: CompressedModel) -> None:
    entries, _ = find_entries([compressed.bundle])
    assert put_baseline_first(entries)[0].name == "ort-float32"
    assert put_baseline_first(entries, artifact="tflite-int8")[0].name == "tflite-int8"
    device = [entry for entry in entries if entry.artifact.backend == "tflite"]
    assert [e.name for e in put_baseline_first(device)][:1] == ["tflite-float32"]
    assert sorted(map(id, put_baseline_first(device))) == sorted(map(id, device))
    named = [Entry(f"small:{e.name}", e.bundle, e.artifact) for e in entries]
    assert put_baseline_first([*entries, *named], "small:")[0].name == "small:ort-float32"
    with pytest.raises(BadInputError, match=r"'ort-float32'.* one of tflite-int8 as --baseline"):
        put_baseline_first([e for e in device if e.name == "tflite-int8"])
