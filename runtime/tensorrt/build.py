"""Build an engine: NVIDIA's parser and builder, driven over the switches of its versions.

It works in a process of its own (``edgedl.runtime.tensorrt.build_process``): the builder can crash,
it does not listen to Ctrl-C, and it keeps memory.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from edgedl.runtime.bundle.shape_range import ShapeRange
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.tensorrt.library import Library
from edgedl.runtime.tensorrt.phases import Phases

MIB = 1 << 20


class EngineRefusedError(BadInputError):
    """NVIDIA's parser or builder refuses a file (exit code 2)."""


class BuildSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an engine is built.

    Attributes:
        library: "tensorrt" or "tensorrt_rtx".
        profile: sizes of each input; empty where the file leaves none free.
        types: of the file that TensorRT 8.6 has to be allowed: "float16", "int8".
        workspace_mib: most memory of the GPU that a layer may use while it runs; None for all.
        sparse: whether kernels for weights of which two in four are 0 may be chosen.
        dla_core: of a Jetson's accelerator that layers go to, with the GPU for the others; None for
            the GPU alone.
        compute_capabilities: of the GPUs to compile for ahead of time; empty for the GPU that is
            here, or all of them that the library compiles for where there is none.
    """

    library: str
    profile: tuple[ShapeRange, ...] = ()
    types: tuple[str, ...] = ()
    workspace_mib: int | None = None
    sparse: bool = False
    dla_core: int | None = None
    compute_capabilities: tuple[str, ...] = ()


class Built(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine, and what the builder said.

    Attributes:
        engine: the serialized engine, for ``Runtime.deserialize_cuda_engine``.
        timings: times of kernels, for the next build; empty where the library keeps none.
        on_gpu: names of the layers that the accelerator does not take; empty without one.
        profile: sizes that it was built for.
    """

    engine: bytes
    timings: bytes = b""
    on_gpu: tuple[str, ...] = ()
    profile: tuple[ShapeRange, ...] = ()


def build(
    library: Library,
    model: bytes,
    settings: BuildSettings,
    timings: bytes = b"",
    tell: Callable[[float], None] = lambda share: None,
) -> Built:
    """Build an engine of an ONNX file, in this process.

    Args:
        library: that builds.
        model: the file.
        settings: how.
        timings: of an earlier build.
        tell: is told the share of the work that is done, 0 to 1.

    Raises:
        EngineRefusedError: the parser or the builder refuses the file.
        BadInputError: the library has no such accelerator, or compiles for no such GPU.
    """
    trt = library.module
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_creation_flags(library))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise EngineRefusedError(_one_line([*reasons, *log.errors]))
    config = builder.create_builder_config()
    _configure(library, config, settings)
    if settings.profile:
        config.add_optimization_profile(_profile(builder, settings.profile))
    on_gpu = _use_dla(library, builder, network, config, settings.dla_core)
    kept = None
    if library.keeps_timings:
        # What is no cache of this version gives none.
        kept = config.create_timing_cache(timings) or config.create_timing_cache(b"")
        config.set_timing_cache(kept, ignore_mismatch=False)
    if library.has_progress:
        config.progress_monitor = _monitor(trt, tell)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineRefusedError(_one_line(log.errors))
    # With memory views: a copy of an engine for a large network takes as much again.
    times = b"" if kept is None else bytes(memoryview(kept.serialize()))
    return Built(bytes(memoryview(engine)), times, on_gpu, settings.profile)


def _creation_flags(library: Library) -> int:
    """Return the flags of a network whose types the file decides, where the library can that."""
    flags = library.module.NetworkDefinitionCreationFlag
    if library.is_strongly_typed:
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH)


def _configure(library: Library, config: Any, settings: BuildSettings) -> None:
    trt = library.module
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * MIB)
    if settings.sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if not library.is_strongly_typed:
        for name, flag in (("float16", "FP16"), ("int8", "INT8")):
            if name in settings.types:
                config.set_flag(getattr(trt.BuilderFlag, flag))
    if settings.compute_capabilities:
        values = [library.compute_capability(name) for name in settings.compute_capabilities]
        config.num_compute_capabilities = len(values)
        for index, value in enumerate(values):
            config.set_compute_capability(value, index)


def _profile(builder: Any, ranges: tuple[ShapeRange, ...]) -> Any:
    profile = builder.create_optimization_profile()
    for sizes in ranges:
        profile.set_shape(sizes.input, sizes.min, sizes.opt, sizes.max)
    return profile


def _use_dla(
    library: Library, builder: Any, network: Any, config: Any, core: int | None
) -> tuple[str, ...]:
    """Send layers to an accelerator; return the names of those that it does not take."""
    if core is None:
        return ()
    if core >= builder.num_DLA_cores:
        raise BadInputError(
            f"there is no DLA core {core}: {library.name} {library.version} finds "
            f"{builder.num_DLA_cores} here"
        )
    trt = library.module
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

    return Log()


def _monitor(trt: Any, tell: Callable[[float], None]) -> Any:
    phases = Phases()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Adds the builder's phases up."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            tell(phases.share)
            return True

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)
            tell(phases.share)

    return Monitor()


def _one_line(reasons: list[str]) -> str:
    """Return the first reason in one line; the others follow from it."""
    return " ".join(reasons[0].split()) if reasons else "the builder gave no reason"
