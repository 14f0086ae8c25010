"""Files timed in processes of their own; what becomes of refusals and crashes."""

import numpy as np
import pytest

from edgedl.runtime.errors import FileFailedError
from edgedl.runtime.measure.measure import Protocol, measure_loads
from edgedl.runtime.measure.worker import Worker, golden_call

QUICK = Protocol(blocks=4, block_ms=0.5, min_calls=3, max_calls=5, warmup_ms=20.0)


def test_two_runtimes_take_turns(compressed):
    folder = compressed.bundle.folder
    with Worker("ort") as ort, Worker("tflite") as tflite:
        arms = {
            "a": ort.load("a", folder, "ort-float32", 1),
            "b": ort.load("b", folder, "ort-int8", 1),
            "c": tflite.load("c", folder, "tflite-int8", 1),
        }
        assert ort._process.pid != tflite._process.pid
        found = measure_loads(arms, QUICK)
    assert set(found) == set(arms)
    assert all(
        m.latency_ns.shape[:2] == (4, 1) and (m.latency_ns > 0).all() for m in found.values()
    )
    assert ort._process.returncode == tflite._process.returncode == 0


def test_a_call_here_and_one_in_a_worker_take_the_same_time(compressed):
    bundle = compressed.bundle
    here = golden_call(bundle, "ort-float32", 1)
    with Worker("ort") as worker:
        there = worker.load("x", bundle.folder, "ort-float32", 1)
        pairs = [(here.block(3, 20), there.block(3, 20)) for _ in range(15)]
    ratios = [np.median(b) / np.median(a) for a, b in pairs]
    # Time on the way between the processes would make it ten times as long.
    assert 0.2 < np.median(ratios) < 5


def test_a_refusal_is_the_runtimes_own_and_the_worker_goes_on(compressed, bundle_copy):
    with Worker("ort") as worker:
        with pytest.raises(FileFailedError, match="no artifact 'nothing'"):
            worker.load("x", compressed.bundle.folder, "nothing", 1)
        arm = worker.load("y", compressed.bundle.folder, "ort-float32", 1)
        assert (arm.block(0, 3) > 0).all()


def test_a_process_that_ends_is_named(compressed):
    with Worker("ort") as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(FileFailedError, match=r"x: the process that times ort .*SIGKILL"):
            worker.load("x", compressed.bundle.folder, "ort-float32", 1)
