"""NVIDIA's TensorRT and TensorRT-RTX: which is here, and what its version has.

TensorRT 8.6, 10.x, 11.x and TensorRT-RTX 1.x have one Python API with different parts left out:
8.6 has no strong typing and no progress, 11.x no flags for precisions, RTX compiles for GPUs that
are not here.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast, get_args

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line
from edgedl.runtime.wording import meant

LibraryName = Literal["tensorrt", "tensorrt_rtx"]
LIBRARIES: tuple[str, ...] = get_args(LibraryName)


@dataclass(frozen=True)
class Library:
    """One of NVIDIA's two libraries.

    Attributes:
        name: of its Python module.
        module: that was imported.
    """

    name: str
    module: ModuleType

    @property
    def version(self) -> str:
        """Its version."""
        return str(self.module.__version__)

    @property
    def is_strongly_typed(self) -> bool:
        """Whether the types in the file decide in which type a layer computes.

        Before TensorRT 10 it was up to the builder, within what its flags allow.
        """
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def has_progress(self) -> bool:
        """Whether the builder says how far it is."""
        return hasattr(self.module, "IProgressMonitor")

    @property
    def keeps_timings(self) -> bool:
        """Whether the builder times kernels, and takes the times of an earlier build."""
        return not self.compiles_ahead

    @property
    def compiles_ahead(self) -> bool:
        """Whether it compiles for GPUs that are not here."""
        return hasattr(self.module.IBuilderConfig, "set_compute_capability")

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that it compiles for ahead of time, such as "8.6"."""
        if not self.compiles_ahead:
            return ()
        names = [n for n in dir(self.module.ComputeCapability) if n.startswith("SM")]
        return tuple(sorted((f"{n[2:-1]}.{n[-1]}" for n in names), key=float))

    def compute_capability(self, name: str) -> Any:
        """Return the library's value for a compute capability.

        Raises:
            BadInputError: the library does not compile for it.
        """
        known = self.compute_capabilities
        if name not in known:
            only = f"{self.name} {self.version} compiles for the GPU of this machine only"
            none = f"{self.name} {self.version} does not compile for compute capability '{name}'"
            raise BadInputError(f"{none}{meant(name, known)}" if known else only)
        return getattr(self.module.ComputeCapability, f"SM{name.replace('.', '')}")


def open_library(name: str) -> Library:
    """Import one of the two libraries.

    Raises:
        BadInputError: there is no such library.
        BackendUnavailableError: it is not installed, or its own libraries cannot be loaded.
    """
    if name not in LIBRARIES:
        raise BadInputError(f"no TensorRT library '{name}'{meant(name, LIBRARIES)}")
    try:
        module = _import(name)
    except ImportError as error:
        comes = "it comes with JetPack, or: pip install tensorrt"
        how = comes if name == "tensorrt" else install_line("tensorrt-check")
        missing = f"{name} is missing: {how}"
        raise BackendUnavailableError.of(error, missing) from error
    if not hasattr(module, "__version__"):
        raise BackendUnavailableError(
            f"what is imported as {name} is not NVIDIA's library (tensorrt-stubs leaves such a "
            "folder): pip uninstall tensorrt-stubs"
        )
    return Library(name, module)


def _import(name: str) -> ModuleType:
    # Not by its name: the digest of a stage's code follows the imports that are written down.
    if name == "tensorrt":
        import tensorrt

        return cast(ModuleType, tensorrt)
    import tensorrt_rtx

    return cast(ModuleType, tensorrt_rtx)
