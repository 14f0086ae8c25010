"""A GPU made of the host's memory, for what a session does around an engine.

Names and numbers of arguments are those of the installed cuda-bindings. Work is done at once; what
is recorded is done when it is launched.
"""

import ctypes
from collections.abc import Callable
from typing import Any

from cuda.bindings import runtime

from edgedl.runtime.tensorrt.cuda import Bytes, Cuda


class HostGpu(Cuda):
    """Keeps count of what is taken and given back.

    Attributes:
        memory: by address. objects: streams, events and graphs that are alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[int, Any] = {}
        self.objects: list[object] = []
        self.recording: list[Callable[[], None]] | None = None
        self.launches = 0

    def call(self, name: str, *arguments: Any) -> Any:
        heading = getattr(runtime, name).__doc__.splitlines()[0]
        inside = heading.partition("(")[2].rpartition(")")[0]
        assert len(arguments) == (inside.count(",") + 1 if inside else 0), heading
        if name in ("cudaMalloc", "cudaMallocHost"):
            block = ctypes.create_string_buffer(arguments[0])
            self.memory[ctypes.addressof(block)] = block
            return ctypes.addressof(block)
        if name in ("cudaFree", "cudaFreeHost"):
            del self.memory[arguments[0]]
        elif name in ("cudaStreamCreate", "cudaEventCreate", "cudaStreamEndCapture"):
            self.objects.append(Handle())
            return self.objects[-1]
        elif name == "cudaGraphInstantiate":
            work, self.recording = self.recording, None
            self.objects.append(Handle(work))
            return self.objects[-1]
        elif name.endswith("Destroy"):
            self.objects.remove(arguments[0])
        elif name == "cudaStreamBeginCapture":
            self.recording = []
        elif name == "cudaGraphLaunch":
            self.launches += 1
            for work in arguments[0].work:
                work()
        elif name == "cudaEventElapsedTime":
            return 0.5
        return None

    def do(self, work: Callable[[], None]) -> None:
        """Do it now, or record it."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def to_device(self, target: int, source: Bytes, stream: Any) -> None:
        self.do(lambda: ctypes.memmove(target, source.ctypes.data, source.nbytes))

    def to_host(self, target: Bytes, source: int, stream: Any) -> None:
        self.do(lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))


class Handle:
    """A stream, an event or a graph."""

    def __init__(self, work: list[Callable[[], None]] | None = None) -> None:
        self.work = work or []

    def __int__(self) -> int:
        return 7
