"""Fixtures of the runtime's tests: damage with a purpose."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_task

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.manifest import Manifest
from edgedl.runtime.bundle.seal import MANIFEST, write_sealed

EditManifest = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.fixture(scope="session")
def manifest(compressed: CompressedModel) -> Manifest:
    return compressed.bundle.manifest


@pytest.fixture
def edit_manifest(bundle_copy: Path) -> EditManifest:
    """Change the manifest of ``bundle_copy`` as plain JSON, and its digest with it."""

    def edit(change: Callable[[dict[str, Any]], object]) -> None:
        content = json.loads((bundle_copy / MANIFEST).read_text())
        change(content)
        write_sealed(bundle_copy, json.dumps(content).encode())

    return edit


@pytest.fixture
def replace_file(bundle_copy: Path, edit_manifest: EditManifest) -> Callable[[str, bytes], None]:
    """Replace a file of ``bundle_copy`` and tell the manifest its new size and sha256."""

    def replace(name: str, content: bytes) -> None:
        (bundle_copy / name).write_bytes(content)
        record = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        edit_manifest(lambda m: m["files"].__setitem__(name, record))

    return replace


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Eight network inputs, float32 [8, 3, 12, 12]."""
    return next(make_task().batches("test", 8)).inputs[0]
