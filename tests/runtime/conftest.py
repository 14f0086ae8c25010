"""Fixtures of the runtime's tests: damage with a purpose, and errors checked in full."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_task

from edgedl.compress.pack import CompressedModel
from edgedl.runtime.manifest import Manifest

EXIT_CODES = {
    "BadInputError": 2,
    "InvalidMeasurementError": 3,
    "BackendUnavailableError": 4,
    "IntegrityError": 5,
}

Refused = Callable[..., AbstractContextManager[None]]
EditManifest = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Expect exactly this error class, its exit code, and one line that holds all words."""

    @contextmanager
    def check(error: type[Exception], *words: str) -> Iterator[None]:
        with pytest.raises(error) as caught:
            yield
        message = str(caught.value)
        assert type(caught.value) is error
        assert caught.value.exit_code == EXIT_CODES[error.__name__]
        assert len(message.splitlines()) == 1
        for word in words:
            assert word in message

    return check


@pytest.fixture(scope="session")
def manifest(compressed: CompressedModel) -> Manifest:
    return compressed.bundle.manifest


@pytest.fixture
def edit_manifest(bundle_copy: Path) -> EditManifest:
    """Change the manifest of ``bundle_copy`` as plain JSON."""

    def edit(change: Callable[[dict[str, Any]], object]) -> None:
        path = bundle_copy / "manifest.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

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
