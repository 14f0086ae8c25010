"""CUDA's runtime, through NVIDIA's own Python binding: memory, streams, events, graphs."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.install import install_line

Bytes = npt.NDArray[np.uint8]


class CudaError(BackendUnavailableError):
    """A call to the GPU fails (exit code 4)."""


class Cuda:
    """The calls of CUDA's runtime that a session needs. Pointers and handles are CUDA's own."""

    def __init__(self) -> None:
        """Import the binding.

        Raises:
            BackendUnavailableError: it is not installed.
        """
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            missing = f"cuda-bindings is missing: {install_line('tensorrt')}"
            raise BackendUnavailableError.of(error, missing) from error
        self._api = runtime

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function; return its result, a tuple of them, or None.

        Raises:
            CudaError: it returns an error.
        """
        code, *results = getattr(self._api, name)(*arguments)
        if int(code) != 0:
            raise CudaError(f"{name} fails on the GPU: {getattr(code, 'name', code)}")
        return results[0] if len(results) == 1 else (tuple(results) or None)

    def to_device(self, target: int, source: Bytes, stream: Any) -> None:
        """Copy pinned memory to the GPU, in the order of a stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", target, source.ctypes.data, source.nbytes, kind, stream)

    def to_host(self, target: Bytes, source: int, stream: Any) -> None:
        """Copy memory of the GPU to pinned memory, in the order of a stream."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", target.ctypes.data, source, target.nbytes, kind, stream)

    def begin_capture(self, stream: Any) -> None:
        """Record what is put on a stream from now on, instead of running it."""
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """Return what was recorded, ready to be launched."""
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            return self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)

    def milliseconds(self, start: Any, end: Any) -> float:
        """Return the time between two events that have passed."""
        return float(self.call("cudaEventElapsedTime", start, end))


class Buffer:
    """As many bytes on the GPU as in pinned memory of the host."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        """Take the memory."""
        self._cuda = cuda
        self.device = int(cuda.call("cudaMalloc", size))
        try:
            self._pinned = int(cuda.call("cudaMallocHost", size))
        except CudaError:
            cuda.call("cudaFree", self.device)
            raise
        self.host: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._pinned))

    def free(self) -> None:
        """Give it back. Arrays on it must not be used any more."""
        self._cuda.call("cudaFree", self.device)
        self._cuda.call("cudaFreeHost", self._pinned)
