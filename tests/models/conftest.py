"""Fixtures of the models' tests: a cache folder that is nobody's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedl.models.data.images import LabelledImages


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, so that no test sees or touches the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def small_split() -> Callable[..., LabelledImages]:
    """Return a function that makes a split of random pictures."""

    def make(count: int = 20, shape: tuple[int, ...] = (6, 5, 3), seed: int = 0) -> LabelledImages:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
        return LabelledImages(images, rng.integers(0, 10, count))

    return make
