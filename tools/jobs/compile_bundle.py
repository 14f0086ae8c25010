"""Build the engines of a bundle: on the device, ahead of time, or as a package for the device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.backends.engines import EngineBackend
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.bundle.shape_range import Shape
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.progress import SILENT, Progress
from edgedl.runtime.selfcheck.golden import GoldenCheck, check_golden
from edgedl.runtime.tensorrt.build import BuildSettings
from edgedl.runtime.tensorrt.building import build_engine
from edgedl.runtime.tensorrt.profiles import BATCH, LENGTH, Sizes, corners, profile

SUFFIX = ".engine"


@dataclass(frozen=True)
class Wish:
    """What the user says of how engines are built; None and empty leave the default.

    Attributes:
        batch, length: sizes of the first axis, and of the other free axes.
        workspace_mib: most memory of the GPU that a layer may use.
        sparse: whether kernels for 2:4 sparse weights may be chosen.
        dla_core: of a Jetson's accelerator.
        compute_capabilities: of the GPUs to compile for ahead of time.
    """

    batch: Sizes | None = None
    length: Sizes | None = None
    workspace_mib: int | None = None
    sparse: bool = False
    dla_core: int | None = None
    compute_capabilities: tuple[str, ...] = ()

    def settings(self, backend: EngineBackend, artifact: Artifact) -> BuildSettings:
        """Return how an engine of a file is built.

        Raises:
            BadInputError: there is a size for an axis that the file fixes.
        """
        settings = backend.settings(artifact)
        sizes = settings.profile
        batch, length = self.batch, self.length
        if self.dla_core is not None:
            # NVIDIA's accelerator takes fixed sizes alone.
            batch = batch or Sizes(1, 1, 1)
            length = length or Sizes(*[LENGTH.opt] * 3)
        if self.batch is not None and all(spec.shape[:1] != (None,) for spec in artifact.inputs):
            raise BadInputError(f"{artifact.name} leaves no batch free: --batch says nothing")
        if batch is not None or length is not None:
            sizes = profile(artifact.inputs, batch or BATCH, length or LENGTH)
        return msgspec.structs.replace(
            settings,
            profile=sizes,
            workspace_mib=self.workspace_mib,
            sparse=self.sparse,
            dla_core=self.dla_core,
            compute_capabilities=self.compute_capabilities,
        )


@dataclass(frozen=True)
class Compiled:
    """An engine that is ready.

    Attributes:
        artifact: that it is of.
        size_bytes: of it.
        on_gpu: layers that the accelerator does not take; empty without one.
        golden: how it computes the golden inputs; None where it was not run.
    """

    artifact: Artifact
    size_bytes: int
    on_gpu: tuple[str, ...] = ()
    golden: GoldenCheck | None = None


def artifacts_to_compile(
    bundle: Bundle, backend: EngineBackend, names: Sequence[str]
) -> list[Artifact]:
    """Return the named artifacts, or all that an engine can be built of.

    Raises:
        BadInputError: there is none, or a named one is for another runtime.
    """
    artifacts = [bundle.artifact(name) for name in names] or [
        a for a in bundle.manifest.artifacts if a.backend == backend.files
    ]
    for artifact in artifacts:
        if artifact.backend != backend.files:
            raise BadInputError(f"'{artifact.name}' is for {artifact.backend}, not for TensorRT")
    if not artifacts:
        raise BadInputError(
            f"{bundle.folder} has no file for TensorRT: compress with --target tensorrt"
        )
    return artifacts


def compile_here(
    bundle: Bundle,
    backend: EngineBackend,
    artifacts: Sequence[Artifact],
    wish: Wish,
    progress: Progress = SILENT,
) -> Iterator[Compiled]:
    """Build engines for the GPU that is here, keep them, and run each.

    Each runs at the corners of its profile, and must give the golden outputs.

    Raises:
        BackendUnavailableError: there is no GPU, or no library.
        BadInputError: the builder refuses a file, or an engine a corner of its profile.
    """
    for artifact in artifacts:
        progress.step("build", artifact.name)
        settings = wish.settings(backend, artifact)
        model = bundle.read(artifact.path)
        built = backend.engine(model, artifact, settings, progress)
        progress.step("run", artifact.name)
        session = backend.session(built, artifact)
        with LoadedModel(bundle, artifact, session=session) as loaded:
            for shapes in corners(settings.profile):
                session.run([_zeros(spec, shapes) for spec in artifact.inputs])
            golden = check_golden(loaded)
        yield Compiled(artifact, len(built.engine), built.on_gpu, golden)


def _zeros(spec: TensorSpec, shapes: Mapping[str, Shape]) -> Array:
    """Return an input at a corner of the profile; one that is not in it has fixed sizes."""
    return np.zeros(shapes.get(spec.name, tuple(size or 1 for size in spec.shape)), spec.dtype)


def compile_ahead(
    bundle: Bundle,
    backend: EngineBackend,
    artifacts: Sequence[Artifact],
    wish: Wish,
    folder: Path,
    progress: Progress = SILENT,
) -> Iterator[Compiled]:
    """Build engines for GPUs that are not here, into a folder. Nothing is run.

    Raises:
        BackendUnavailableError: the library is not installed.
        BadInputError: the builder refuses a file, or does not compile for such a GPU.
    """
    for artifact in artifacts:
        progress.step("build", artifact.name)
        settings = wish.settings(backend, artifact)
        built = build_engine(bundle.read(artifact.path), settings, progress=progress)
        (folder / f"{artifact.name}{SUFFIX}").write_bytes(built.engine)
        yield Compiled(artifact, len(built.engine), built.on_gpu)
