"""Files that end the process which loads them are found, and the others are tried all the same."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.measure.crashes import find_crashes


def test_a_healthy_bundle_has_none(compressed: CompressedModel) -> None:
    names = [a.name for a in compressed.bundle.manifest.artifacts if a.backend != "tensorrt"]
    assert find_crashes(compressed.bundle.folder, names) == {}


def test_what_a_runtime_refuses_with_an_error_is_no_crash(compressed: CompressedModel) -> None:
    (tensorrt,) = [
        a.name
        for a in compressed.bundle.manifest.artifacts
        if a.backend == "tensorrt" and a.precision == "float32"
    ]
    assert find_crashes(compressed.bundle.folder, [tensorrt, "ort-float32"]) == {}


@pytest.mark.parametrize(
    ("names", "crashing"),
    [
        (["a", "b", "c"], {"b"}),
        (["a", "b", "c"], {"a", "c"}),
        (["a", "b", "c"], {"a", "b", "c"}),
        (["a"], set()),
    ],
)
def test_after_a_crash_the_rest_is_tried(
    names: list[str], crashing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: Sequence[str], **_: Any) -> SimpleNamespace:
        """Answer as the child would: the names until one of the crashing ones."""
        said = []
        for name in command[4:]:
            if name in crashing:
                return SimpleNamespace(returncode=-11, stdout="".join(said))
            said.append(f"{name}\n")
        return SimpleNamespace(returncode=0, stdout="".join(said))

    monkeypatch.setattr(subprocess, "run", run)
    assert find_crashes(Path("bundle"), names) == dict.fromkeys(sorted(crashing), 11)
