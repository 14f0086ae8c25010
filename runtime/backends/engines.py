"""The runtimes that run engines: TensorRT and TensorRT-RTX."""

import logging
from collections.abc import Sequence

from edgedl.runtime.backend import Availability, Session
from edgedl.runtime.backends.external_data import refuse_external_data
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.gpu import Gpu, find_gpu
from edgedl.runtime.placement import Fallback, Placement
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.tensorrt.build import BuildSettings, Built
from edgedl.runtime.tensorrt.building import build_engine
from edgedl.runtime.tensorrt.cache import EngineCache, EngineKey, kept_or_built
from edgedl.runtime.tensorrt.cuda import Cuda
from edgedl.runtime.tensorrt.library import open_library
from edgedl.runtime.tensorrt.profiles import profile
from edgedl.runtime.tensorrt.session import TensorRTSession

LOG = logging.getLogger(__name__)
# Types that a builder before TensorRT 10 has to be allowed.
TYPES = ("float16", "int8")
# What people call each library, and its package.
NAMES = {"tensorrt": ("TensorRT", "tensorrt"), "tensorrt_rtx": ("TensorRT-RTX", "tensorrt-rtx")}


class EngineBackend:
    """Builds an engine of an ONNX file on the GPU that is here, keeps it, and runs it."""

    files = "tensorrt"
    suffix = ".onnx"
    rounds_inputs = False
    parses_apart = True
    on_gpu = True
    without_vnni: str | None = None

    def __init__(self, library: str = "tensorrt", cuda_graph: bool = False) -> None:
        """Take a library.

        Args:
            library: "tensorrt" or "tensorrt_rtx".
            cuda_graph: whether the work of a call is recorded and launched as a whole.
        """
        self._library, self._cuda_graph = library, cuda_graph
        self.label, self.package = NAMES[library]

    def available(self) -> Availability:
        """Say whether there is a GPU, the library, and the binding of CUDA."""
        try:
            # The driver comes first: without it, objects of the library crash.
            gpu = self._gpu()
            library = open_library(self._library)
            Cuda()
        except BackendUnavailableError as error:
            return Availability(False, str(error))
        return Availability(True, f"{self._library} {library.version} on {gpu.name}")

    def settings(self, artifact: Artifact) -> BuildSettings:
        """Return how an engine of a file is built where nobody says anything else."""
        sizes = artifact.profile or profile(artifact.inputs)
        types = tuple(name for name in TYPES if name in artifact.precision)
        return BuildSettings(self._library, sizes, types)

    def engine(
        self,
        model: bytes,
        artifact: Artifact,
        settings: BuildSettings | None = None,
        progress: Progress = SILENT,
    ) -> Built:
        """Return the engine of a verified file for the GPU that is here, built if it has to be.

        Args:
            model: the file.
            artifact: its description.
            settings: how it is built, from now on; None for those of the last time.
            progress: is told why it is built, and how far that is.

        Raises:
            BackendUnavailableError: there is no GPU, or no library.
            BadInputError: the builder refuses the file.
            IntegrityError: an engine that is kept here is not to be trusted.
        """
        gpu, library, cache = self._gpu(), open_library(self._library), EngineCache.of_user()
        refuse_external_data(model, artifact.path)
        chosen = settings or cache.settings(model, self._library) or self.settings(artifact)
        key = EngineKey.of(model, library.version, gpu, chosen)

        def build(timings: bytes) -> Built:
            return build_engine(model, chosen, timings, progress)

        def say(text: str) -> None:
            if progress is SILENT:
                LOG.warning("%s: %s", artifact.name, text)
            progress.note(text)

        built = kept_or_built(cache, key, build, say)
        if settings is not None:
            try:
                cache.keep_settings(model, settings)
            except OSError as error:
                say(f"these options do not stay for the next time: {error}")
        return built

    def session(self, built: Built, artifact: Artifact) -> TensorRTSession:
        """Load an engine of a file.

        Raises:
            BadInputError: the library refuses it.
            CudaError: there is not enough memory on the GPU.
        """
        library = open_library(self._library)
        return TensorRTSession(
            library,
            built.engine,
            artifact.inputs,
            artifact.outputs,
            built.profile,
            self._cuda_graph,
            placement_of(self._gpu(), built),
        )

    def _gpu(self) -> Gpu:
        try:
            return find_gpu()
        except BackendUnavailableError as error:
            raise BackendUnavailableError(f"{self.label}: {error}") from error

    def load(self, model: bytes, artifact: Artifact, threads: int) -> Session:
        """Load the engine of a file; one that is not kept here is built first."""
        return self.session(self.engine(model, artifact), artifact)

    def observe(self, model: bytes, artifact: Artifact, tensors: Sequence[str]) -> Session:
        """Load nothing: an engine shows no tensor from inside, and one that does is another one."""
        raise BadInputError(f"{self.label} has no tensors from inside of {artifact.path} to show")


def placement_of(gpu: Gpu, built: Built) -> Placement:
    """Say where an engine computes: layers that a Jetson's DLA does not take run on the GPU."""
    if not built.on_gpu:
        return Placement(gpu.name)
    layers = tuple(("", name) for name in built.on_gpu)
    return Placement(f"the DLA of {gpu.name}", (Fallback("the GPU", layers, other_device=True),))
