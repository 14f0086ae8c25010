"""What rows of several bundles are called, and what they are held against."""

import json
from pathlib import Path

import msgspec
import onnx
import pytest
from command import Run

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.errors import BadInputError
from edgedl.tools.bench.entries import (
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
    with pytest.raises(
        BadInputError, match="'ort-float32' runs on this machine; known: tflite-int8"
    ):
        put_baseline_first([e for e in device if e.name == "tflite-int8"])


@pytest.fixture
def refused_here(bundle_copy: Path) -> Path:
    """A bundle of which ONNX Runtime on this processor takes one file no more."""
    path = bundle_copy / "float16.onnx"
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)
    manifest = Bundle.open(bundle_copy).manifest
    write_manifest(bundle_copy, msgspec.structs.replace(manifest, files=record_files(bundle_copy)))
    return bundle_copy


@pytest.mark.slow
def test_bench_goes_on_without_a_file_that_its_runtime_refuses(
    edgedl: Run, refused_here: Path, subject_file: Path, tmp_path: Path
) -> None:
    task = ("--task", f"{subject_file}:subject")
    done = edgedl(
        "bench", refused_here, *task, "--threads", 1, "--blocks", 40, "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    names = [c["name"] for c in result["candidates"]]
    assert "ort-int8" in names
    assert "ort-float16" not in names
    (why,) = (m["why"] for m in result["not_measured"] if m["what"] == "ort-float16")
    assert "onnxruntime refuses float16.onnx" in why


def test_verify_goes_on_behind_a_file_that_its_runtime_refuses(
    edgedl: Run, refused_here: Path
) -> None:
    done = edgedl("verify", refused_here)
    assert done.returncode == 5
    assert "ort-float16: FAILED, onnxruntime refuses float16.onnx" in done.stdout
    assert "ort-int8: ok" in done.stdout
    assert "tflite-int8: ok" in done.stdout
    assert "ort-float16 does not run on this machine" in done.stderr
    assert "differ from those" not in done.stderr
