"""A cold start in a process of its own prints one line of JSON; errors come before any timing."""

import json
import subprocess
import sys

import pytest

from edgedl.runtime.errors import BackendUnavailableError, BadInputError, IntegrityError
from edgedl.runtime.measure.coldstart import cold_start

KEYS = {"load_ms", "first_inference_ms", "fallbacks"}


@pytest.mark.parametrize("artifact", ["ort-int8", "tflite-int8"])
def test_fresh_process(compressed, artifact):
    command = [sys.executable, "-m", "edgedl.runtime.measure.coldstart"]
    done = subprocess.run(
        [*command, str(compressed.bundle.folder), artifact, "1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    times = json.loads(line)
    assert set(times) == KEYS
    fallbacks = times.pop("fallbacks")
    assert len(fallbacks) == (artifact == "tflite-int8")
    assert all(value > 0 for value in times.values())


def test_same_process(compressed):
    times = cold_start(compressed.bundle.folder, "ort-float32", 1)
    assert set(times) == KEYS
    assert times.pop("fallbacks") == []
    assert all(value > 0 for value in times.values())


@pytest.mark.parametrize(
    ("artifact", "error"),
    [("ort-int4", BadInputError), ("tensorrt-int8", BackendUnavailableError)],
)
def test_artifact_that_cannot_start(refused, compressed, artifact, error):
    with refused(error):
        cold_start(compressed.bundle.folder, artifact, 1)


@pytest.mark.parametrize("name", ["golden.npz", "float32.onnx"])
def test_damaged_bundle(refused, bundle_copy, name):
    path = bundle_copy / name
    path.write_bytes(path.read_bytes()[::-1])
    with refused(IntegrityError, name, "sha256"):
        cold_start(bundle_copy, "ort-float32", 1)
