"""One runner called by several threads: each gets the answer to its own inputs."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import psutil
import pytest

from edgedl.runtime.backends.runtimes import open_backend
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.runner import Runner

THREADS, CALLS = 2, 2000
RUNNABLE = ("ort-float32", "ort-int8", "openvino-float32", "tflite-float32", "tflite-int8")


def open_runner(compressed, name):
    """Open an artifact of the bundle; OpenVINO's is the file that was made for ONNX Runtime."""
    backend, precision = name.split("-")
    like = compressed.bundle.artifact(f"ort-{precision}" if backend == "openvino" else name)
    described = Artifact(
        like.name, backend, precision, like.path, like.inputs, like.outputs, like.golden_tolerances
    )
    return Runner(compressed.bundle, described)


@pytest.mark.parametrize("name", RUNNABLE)
def test_each_thread_gets_its_own_answer(compressed, images, name):
    with open_runner(compressed, name) as runner:
        wanted = [runner(images[i : i + 1])[0] for i in range(THREADS)]
        assert not np.array_equal(*wanted)
        together = Barrier(THREADS)

        def call(thread):
            mine = images[thread : thread + 1]
            together.wait()
            return [runner(mine)[0] for _ in range(CALLS)]

        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(call, range(THREADS)))
    for answers, expected in zip(found, wanted, strict=True):
        wrong = [y for y in answers if not np.array_equal(y, expected)]
        assert not wrong, f"{len(wrong)} of {CALLS} answers are another thread's"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ort-float32", "tflite-int8"])
def test_eight_threads_get_their_own_answers_for_long(compressed, images, name):
    process = psutil.Process()
    with open_runner(compressed, name) as runner:
        wanted = [runner(images[i : i + 1])[0] for i in range(8)]
        together, resident = Barrier(8), []

        def call(thread):
            mine, wrong = images[thread : thread + 1], 0
            together.wait()
            for number in range(5_000):
                wrong += not np.array_equal(runner(mine)[0], wanted[thread])
                if thread == 0 and number % 500 == 0:
                    resident.append(process.memory_info().rss)
            return wrong

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(call, range(8))) == 0
    # The first tenth may take memory for its threads.
    assert resident[-1] < 1.05 * resident[1]


@pytest.mark.parametrize("name", RUNNABLE)
def test_threads_may_send_batches_of_different_size(compressed, images, name):
    sizes = range(1, 1 + len(images))
    with open_runner(compressed, name) as runner:
        together = Barrier(len(sizes))

        def call(size):
            together.wait()
            return [runner(images[:size])[0] for _ in range(20)]

        with ThreadPoolExecutor(len(sizes)) as pool:
            found = list(pool.map(call, sizes))
        for size, answers in zip(sizes, found, strict=True):
            (expected,) = runner(images[:size])
            for answer in answers:
                np.testing.assert_allclose(answer, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["ort-float32", "openvino-float32", "tflite-int8"])
def test_a_session_may_be_closed_while_a_thread_runs_it(compressed, images, name):
    runner = open_runner(compressed, name)
    (expected,) = runner(images[:1])
    together = Barrier(2)

    def call():
        together.wait()
        answers = []
        try:
            while True:
                answers.append(runner(images[:1])[0])
        except BadInputError as error:
            return answers, str(error)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call)
        together.wait()
        runner.close()
        answers, said = running.result()
    assert said == "this session is closed"
    assert all(np.array_equal(answer, expected) for answer in answers)


def test_every_runtime_of_this_machine_is_tried():
    names = {name.partition("-")[0] for name in RUNNABLE}
    assert names == {n for n in ("ort", "openvino", "tflite") if open_backend(n).available().usable}
