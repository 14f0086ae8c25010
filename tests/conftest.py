"""Fixtures that several test files share."""

import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

from tiny import make_subject

from edgedl.compress.pack import CompressedModel, compress
from edgedl.compress.recipe import load_recipe

# The same examples in every run: a failure must come from a change.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    """The tiny network, compressed for every target. Tests must not change its files."""
    folder = tmp_path_factory.mktemp("compressed") / "bundle"
    folder.mkdir()
    return compress(
        make_subject(), load_recipe("static_w8c_a8"), ("ort", "tflite", "tensorrt"), folder
    )


@pytest.fixture
def bundle_copy(compressed: CompressedModel, tmp_path: Path) -> Path:
    """A bundle of the tiny network that a test may damage."""
    target = tmp_path / "bundle"
    shutil.copytree(compressed.bundle.folder, target)
    return target
