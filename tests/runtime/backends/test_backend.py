"""The one place that knows which runtimes there are."""

import pytest

from edgedl.runtime.backends.runtimes import BACKENDS, open_backend
from edgedl.runtime.errors import BackendUnavailableError, BadInputError


@pytest.mark.parametrize("name", ["ort", "openvino", "tflite"])
def test_runtimes_of_this_machine_are_available(name):
    availability = open_backend(name).available()
    assert availability.usable
    assert any(c.isdigit() for c in availability.detail)


def test_tensorrt_cannot_run_here(refused, compressed):
    backend, artifact = open_backend("tensorrt"), compressed.bundle.artifact("tensorrt-int8")
    assert not backend.available().usable
    with refused(BackendUnavailableError, "no NVIDIA driver"):
        backend.load(b"", artifact, 1)


@pytest.mark.parametrize("name", ["", "ORT", "onnx", "ort ", "../ort"])
def test_unknown_backend_lists_those_there_are(refused, name):
    with refused(BadInputError, f"'{name}'", *BACKENDS):
        open_backend(name)
