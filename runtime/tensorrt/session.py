"""An engine on the GPU: arrays of the host in, arrays of the host out."""

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from edgedl.runtime.backend import Array, Session
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.bundle.shape_range import Shape, ShapeRange
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.placement import Placement
from edgedl.runtime.tensorrt.cuda import Buffer, Cuda, CudaError
from edgedl.runtime.tensorrt.library import Library

Shapes = tuple[Shape, ...]
LOG = logging.getLogger(__name__)
# What TensorRT calls numpy's types.
TYPES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


class StageTimes(NamedTuple):
    """Times of one run on the GPU, in milliseconds.

    Attributes:
        to_device_ms: copying the inputs. compute_ms: the engine. to_host_ms: copying the outputs.
    """

    to_device_ms: float
    compute_ms: float
    to_host_ms: float


class TensorRTSession(Session):
    """A loaded engine.

    Its context and its buffers are kept between calls, so a lock is held from the first input that
    is copied to the last output.
    """

    def __init__(
        self,
        library: Library,
        engine: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        profile: Sequence[ShapeRange] = (),
        cuda_graph: bool = False,
        placement: Placement | None = None,
    ) -> None:
        """Load an engine; there must be a driver.

        Args:
            library: that built it.
            engine: serialized.
            inputs: of the file.
            outputs: of the file, in the order of the results.
            profile: sizes that it was built for; empty where the file leaves none free.
            cuda_graph: whether the work of a call is recorded, once for each shape of the inputs,
                and launched as a whole.
            placement: of the engine; None for all of it on the GPU.

        Raises:
            BadInputError: the library refuses the engine, or it has other inputs and outputs.
            BackendUnavailableError: the binding of CUDA is not installed.
            CudaError: there is not enough memory on the GPU.
        """
        trt = library.module
        self._cuda = Cuda()
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._placement = placement or Placement("the GPU")
        # The engine needs its runtime, and the runtime its log.
        self._log = trt.Logger(trt.ILogger.ERROR)
        self._runtime = trt.Runtime(self._log)
        self._types = trt.DataType
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BadInputError(f"{library.name} {library.version} refuses the engine")
        self._check_tensors()
        if profile and profile[0].min:
            self.batches = profile[0].min[0], profile[0].max[0]
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise CudaError("there is not enough memory on the GPU for the engine")
        self._profiler_base = trt.IProfiler
        self._stream = self._cuda.call("cudaStreamCreate")
        self._events = [self._cuda.call("cudaEventCreate") for _ in range(4)]
        self._buffers: dict[str, Buffer] = {}
        self._shapes: Shapes = ()
        self._results: Shapes = ()
        self._records_graphs = cuda_graph
        self._graph: Any = None
        self._lock = Lock()
        self._times: StageTimes | None = None
        self._closed = False

    @property
    def times(self) -> StageTimes | None:
        """Times of the last run; None before the first one, and where a graph is launched."""
        return self._times

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Run one inference on arrays in the file's types and shapes.

        Raises:
            BadInputError: the engine was not built for these shapes, or the session is closed.
            CudaError: the GPU fails.
        """
        with self._lock:
            return self._run(inputs)

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        if self._closed:
            raise BadInputError("this session is closed")
        shapes = tuple(x.shape for x in inputs)
        if shapes != self._shapes:
            self._prepare(shapes)
        for spec, x in zip(self._inputs, inputs, strict=True):
            np.copyto(self._view(spec, x.shape), x)
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.call("cudaGraphLaunch", self._graph, self._stream)
        self._cuda.call("cudaStreamSynchronize", self._stream)
        outputs = [
            self._view(spec, shape).copy()
            for spec, shape in zip(self._outputs, self._results, strict=True)
        ]
        if self._graph is None:
            ms = self._cuda.milliseconds
            pairs = zip(self._events, self._events[1:], strict=False)
            self._times = StageTimes(*(ms(start, end) for start, end in pairs))
            if self._records_graphs:
                self._record()
        return outputs

    def layer_times_ms(self, inputs: Sequence[Array]) -> list[tuple[str, float]]:
        """Return the time of each layer of the engine in one run; it takes longer than others."""
        found: list[tuple[str, float]] = []

        class Profiler(self._profiler_base):  # type: ignore[misc, name-defined]
            def report_layer_time(self, layer_name: str, ms: float) -> None:
                found.append((layer_name, ms))

        # The context keeps no reference of its own.
        profiler = Profiler()
        with self._lock:
            # What is recorded is not reported layer by layer.
            self._drop_graph()
            records, self._records_graphs = self._records_graphs, False
            self._context.profiler = profiler
            try:
                self._run(inputs)
            finally:
                self._context.profiler = None
                self._records_graphs = records
        return found

    def placement(self) -> Placement:
        """Say which layers the builder has left to the GPU where it was asked for the DLA."""
        return self._placement

    def close(self) -> None:
        """Give the GPU's memory back, after the call that runs."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._drop_graph()
            for buffer in self._buffers.values():
                buffer.free()
            self._buffers = {}
            for event in self._events:
                self._cuda.call("cudaEventDestroy", event)
            self._cuda.call("cudaStreamDestroy", self._stream)
            # In this order: each needs the one after it.
            self._context = self._engine = self._runtime = None

    def _prepare(self, shapes: Shapes) -> None:
        """Set the shapes of the inputs, and make buffers that hold all tensors."""
        self._drop_graph()
        self._shapes = ()
        for spec, shape in zip(self._inputs, shapes, strict=True):
            if not self._context.set_input_shape(spec.name, shape):
                raise BadInputError(
                    f"the engine was not built for {list(shape)} as '{spec.name}': compile with "
                    "--batch MIN:OPT:MAX or --length MIN:OPT:MAX"
                )
        found = [tuple(self._context.get_tensor_shape(spec.name)) for spec in self._outputs]
        for spec, result in zip(self._outputs, found, strict=True):
            if any(size < 0 for size in result):
                raise BadInputError(f"the size of output '{spec.name}' depends on the values")
        self._results = tuple(found)
        for spec, shape in zip(
            (*self._inputs, *self._outputs), (*shapes, *self._results), strict=True
        ):
            size = max(1, _bytes(spec, shape))
            old = self._buffers.get(spec.name)
            if old is None or len(old.host) < size:
                if old is not None:
                    self._buffers.pop(spec.name).free()
                self._buffers[spec.name] = Buffer(self._cuda, size)
            if not self._context.set_tensor_address(spec.name, self._buffers[spec.name].device):
                raise BadInputError(f"the engine takes no address for '{spec.name}'")
        self._shapes = shapes

    def _enqueue(self) -> None:
        """Put the copies and the engine on the stream, events between them."""
        begun, copied, computed, done = self._events
        self._cuda.call("cudaEventRecord", begun, self._stream)
        for spec, shape in zip(self._inputs, self._shapes, strict=True):
            buffer = self._buffers[spec.name]
            size = _bytes(spec, shape)
            self._cuda.to_device(buffer.device, buffer.host[:size], self._stream)
        self._cuda.call("cudaEventRecord", copied, self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise BadInputError("the engine refuses to run")
        self._cuda.call("cudaEventRecord", computed, self._stream)
        for spec, shape in zip(self._outputs, self._results, strict=True):
            buffer = self._buffers[spec.name]
            size = _bytes(spec, shape)
            self._cuda.to_host(buffer.host[:size], buffer.device, self._stream)
        self._cuda.call("cudaEventRecord", done, self._stream)

    def _record(self) -> None:
        """Record a call; the run before it has done what must not be recorded.

        An engine that cannot be recorded goes on without.
        """
        self._cuda.begin_capture(self._stream)
        try:
            try:
                self._enqueue()
            finally:
                graph = self._cuda.end_capture(self._stream)
        except (BadInputError, CudaError) as error:
            LOG.warning("calls are not recorded as a CUDA graph: %s", error)
            self._records_graphs = False
            return
        self._graph, self._times = graph, None

    def _check_tensors(self) -> None:
        """Refuse an engine whose inputs and outputs are not those of the file."""
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        for spec in (*self._inputs, *self._outputs):
            if spec.name not in names:
                known = ", ".join(sorted(names))
                raise BadInputError(f"the engine has no tensor '{spec.name}': it has {known}")
            found = self._engine.get_tensor_dtype(spec.name)
            if found != getattr(self._types, TYPES[spec.dtype], found):
                kind = getattr(found, "name", found)
                raise BadInputError(
                    f"the engine has '{spec.name}' as {kind}, the file as {spec.dtype}"
                )

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            self._cuda.call("cudaGraphExecDestroy", graph)

    def _view(self, spec: TensorSpec, shape: Shape) -> Array:
        """Return pinned memory as an array of a tensor's type and shape."""
        host = self._buffers[spec.name].host[: _bytes(spec, shape)]
        return host.view(spec.dtype).reshape(shape)


def _bytes(spec: TensorSpec, shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
