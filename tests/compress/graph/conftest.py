"""Every graph that these tests trace is held against itself before each rewrite."""

import pytest

from edgedl.compress.graph.passes.check_passes import SWITCH


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "1")
