"""Tests marked ``gpu`` are skipped where there is none."""

import pytest

from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.gpu import find_gpu


@pytest.fixture(autouse=True, scope="session")
def gpu() -> None:
    """Skip where there is no GPU, and say why."""
    try:
        find_gpu()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
