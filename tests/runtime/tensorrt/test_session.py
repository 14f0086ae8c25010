"""What a session does around an engine: shapes, buffers, streams, graphs. No engine is run here."""

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from host_gpu import HostGpu
from published_api import VERSIONS, PublishedModule

from edgedl.runtime import gpu
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.bundle.shape_range import ShapeRange
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.loaded_model import run_file
from edgedl.runtime.tensorrt import session
from edgedl.runtime.tensorrt.cuda import Cuda, CudaError
from edgedl.runtime.tensorrt.library import Library
from edgedl.runtime.tensorrt.session import StageTimes, TensorRTSession

X, Y = TensorSpec("x", (None, 3), "float32"), TensorSpec("y", (None, 3), "float16")
NO_GPU = not gpu.Path("/proc/driver/nvidia").exists()


class Doubler:
    """An engine that gives twice its input, for at most four samples."""

    def __init__(self, trt: PublishedModule, gpu: HostGpu) -> None:
        self.addresses: dict[str, int] = {}
        self.shape = (0, 3)
        self.gpu = gpu
        trt.answers.update(
            {
                ("ICudaEngine", "num_io_tensors"): 2,
                ("ICudaEngine", "get_tensor_name"): lambda index: "xy"[index],
                ("ICudaEngine", "get_tensor_dtype"): lambda name: {
                    "x": trt.DataType.FLOAT,
                    "y": trt.DataType.HALF,
                }[name],
                ("IExecutionContext", "set_input_shape"): self.set_shape,
                ("IExecutionContext", "get_tensor_shape"): lambda name: self.shape,
                ("IExecutionContext", "set_tensor_address"): self.set_address,
                ("IExecutionContext", "execute_async_v3"): lambda stream: self.execute(),
            }
        )

    def set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name != "x" or shape[0] > 4:
            return False
        self.shape = shape
        return True

    def set_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute(self) -> bool:
        count = self.shape[0] * self.shape[1]
        source, target = self.addresses["x"], self.addresses["y"]

        def work() -> None:
            x = np.ctypeslib.as_array((ctypes.c_float * count).from_address(source))
            y = np.ctypeslib.as_array((ctypes.c_uint16 * count).from_address(target))
            y[:] = (2 * x).astype(np.float16).view(np.uint16)

        self.gpu.do(work)
        return True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> HostGpu:
    made = HostGpu()
    monkeypatch.setattr(session, "Cuda", lambda: made)
    return made


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest, gpu: HostGpu) -> PublishedModule:
    module = PublishedModule(request.param)
    Doubler(module, gpu)
    return module


def opened(trt: PublishedModule, **settings: object) -> TensorRTSession:
    return TensorRTSession(Library(trt.__name__, trt), b"engine", [X], [Y], **settings)


@pytest.fixture
def loaded(trt: PublishedModule) -> Iterator[TensorRTSession]:
    made = opened(trt)
    yield made
    made.close()


def batch(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def test_batches_of_any_size_get_their_answers(loaded: TensorRTSession) -> None:
    assert loaded.times is None
    for count in (1, 4, 2, 2, 3):
        x = batch(count, count)
        (y,) = loaded.run([x])
        assert y.dtype == np.float16
        np.testing.assert_array_equal(y, (2 * x).astype(np.float16))
    assert loaded.times == StageTimes(0.5, 0.5, 0.5)


def test_outputs_are_the_callers(loaded: TensorRTSession) -> None:
    (first,) = loaded.run([batch(2, 1)])
    kept = first.copy()
    loaded.run([batch(2, 2)])
    np.testing.assert_array_equal(first, kept)


def test_a_batch_beyond_the_profile_is_refused_and_the_next_one_is_not(
    loaded: TensorRTSession, refused
) -> None:
    with refused(BadInputError, "[5, 3]", "'x'", "--batch"):
        loaded.run([batch(5)])
    np.testing.assert_array_equal(loaded.run([batch(2)])[0], (2 * batch(2)).astype(np.float16))


def test_everything_is_given_back(trt: PublishedModule, gpu: HostGpu, refused) -> None:
    for recorded in (False, True):
        made = opened(trt, cuda_graph=recorded)
        for count in (1, 3, 4, 2):
            made.run([batch(count)])
        assert gpu.memory
        made.close()
        made.close()
        assert gpu.memory == {}
        assert gpu.objects == []
    with refused(BadInputError, "closed"):
        made.run([batch(1)])


def test_a_graph_is_recorded_once_for_each_shape(trt: PublishedModule, gpu: HostGpu) -> None:
    made = opened(trt, cuda_graph=True)
    for index, count in enumerate((2, 2, 2, 3, 3, 2)):
        x = batch(count, index)
        np.testing.assert_array_equal(made.run([x])[0], (2 * x).astype(np.float16))
    # The first call of a shape runs, the others launch.
    assert gpu.launches == 3
    made.close()


def test_threads_get_the_answers_to_their_own_inputs(loaded: TensorRTSession) -> None:
    def call(seed: int) -> bool:
        x = batch(1 + seed % 4, seed)
        return bool(np.array_equal(loaded.run([x])[0], (2 * x).astype(np.float16)))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(400)))


def test_layers_are_timed_by_the_contexts_profiler(
    trt: PublishedModule, loaded: TensorRTSession
) -> None:
    assert loaded.layer_times_ms([batch(1)]) == []
    profiler, nothing = (value for (value,) in trt.called("profiler"))
    assert isinstance(profiler, trt.IProfiler)
    assert nothing is None
    profiler.report_layer_time("conv", 0.25)


def test_layers_are_timed_where_calls_are_recorded(trt: PublishedModule, gpu: HostGpu) -> None:
    made = opened(trt, cuda_graph=True)
    for seed, count in enumerate((2, 2, 4, 4, 4)):
        x = batch(count, seed)
        np.testing.assert_array_equal(made.run([x])[0], (2 * x).astype(np.float16))
        made.layer_times_ms([batch(3, seed)])
        np.testing.assert_array_equal(made.run([x])[0], (2 * x).astype(np.float16))
    before = gpu.launches
    made.run([x])
    assert gpu.launches == before + 1
    made.close()
    assert gpu.objects == []


def test_an_engine_that_cannot_be_recorded_goes_on_without(
    trt: PublishedModule, gpu: HostGpu, caplog: pytest.LogCaptureFixture
) -> None:
    made = opened(trt, cuda_graph=True)
    doubler = trt.answers["IExecutionContext", "execute_async_v3"]
    trt.answers["IExecutionContext", "execute_async_v3"] = lambda stream: (
        gpu.recording is None and doubler(stream)
    )
    for seed in range(3):
        x = batch(2, seed)
        np.testing.assert_array_equal(made.run([x])[0], (2 * x).astype(np.float16))
    assert gpu.recording is None
    assert gpu.launches == 0
    assert caplog.text.count("not recorded") == 1
    made.close()


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaMallocHost"])
def test_too_little_memory_for_a_batch_leaves_the_smaller_ones(
    trt: PublishedModule, gpu: HostGpu, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    made = opened(trt)
    made.run([batch(1)])
    real = gpu.call

    def full(name: str, *arguments: object) -> object:
        if name == call:
            raise CudaError(f"{name} fails on the GPU: cudaErrorMemoryAllocation")
        return real(name, *arguments)

    monkeypatch.setattr(gpu, "call", full)
    with pytest.raises(CudaError, match="MemoryAllocation"):
        made.run([batch(4)])
    monkeypatch.setattr(gpu, "call", real)
    np.testing.assert_array_equal(made.run([batch(1, 1)])[0], (2 * batch(1, 1)).astype(np.float16))
    made.close()
    assert gpu.memory == {}


def test_batches_are_cut_and_filled_up_to_the_profile(trt: PublishedModule) -> None:
    for least, most in ((1, 4), (2, 3), (4, 4), (1, 1)):
        sizes = ShapeRange("x", (least, 3), (most, 3), (most, 3))
        made = opened(trt, profile=(sizes,))
        assert made.batches == (least, most)
        artifact = Artifact("name", "tensorrt", "float16", "path", (X,), (Y,), ())
        for count in (1, 2, 3, 4, 5, 9):
            x = batch(count, count)
            (y,) = run_file(made, artifact, [x])
            np.testing.assert_array_equal(y, (2 * x).astype(np.float16).astype(np.float32))
        made.close()


def test_an_engine_of_other_types_is_refused(trt: PublishedModule, refused) -> None:
    kinds = {"x": trt.DataType.INT32, "y": trt.DataType.HALF}
    trt.answers["ICudaEngine", "get_tensor_dtype"] = kinds.__getitem__
    with refused(BadInputError, "'x'", "INT32", "float32"):
        opened(trt)


def test_too_little_memory_for_the_engine_is_said_so(trt: PublishedModule, refused) -> None:
    trt.answers["ICudaEngine", "create_execution_context"] = lambda *_: None
    with refused(CudaError, "not enough memory"):
        opened(trt)


def test_an_engine_that_is_refused_or_has_other_tensors_is_said_so(
    trt: PublishedModule, refused
) -> None:
    with refused(BadInputError, "no tensor 'z'", "x, y"):
        TensorRTSession(Library(trt.__name__, trt), b"", [TensorSpec("z", (1,), "float32")], [Y])
    trt.answers["Runtime", "deserialize_cuda_engine"] = lambda _: None
    with refused(BadInputError, trt.__version__, "refuses the engine"):
        opened(trt)


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_without_a_driver_cuda_says_what_fails(refused) -> None:
    with refused(CudaError, "cudaMalloc fails", "cudaErrorInsufficientDriver"):
        Cuda().call("cudaMalloc", 16)
