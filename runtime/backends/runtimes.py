"""The runtimes that files are made for, and those that run them: each a file beside this one."""

from collections.abc import Iterator
from importlib import import_module

from edgedl.runtime.backend import Backend
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.wording import meant

# The first is the reference: every other file is compared with its float32 file.
RUNTIMES = ("ort", "openvino", "tflite", "tensorrt")
# They run files that were made for another one.
OTHERS = ("ort_cuda", "tflite_runtime", "tensorrt_rtx", "reference")
# It is too slow to be taken where nobody asks for it.
ON_REQUEST = ("reference",)
BACKENDS = (*RUNTIMES, *OTHERS)


def backends_for(runtime: str) -> Iterator[Backend]:
    """Yield the backends that run a runtime's files, its own one first.

    The modules of the others are imported when they are asked for: that takes as long as a small
    file does to load.

    Raises:
        BadInputError: there is no such runtime.
    """
    yield open_backend(runtime)
    for name in OTHERS:
        if name not in ON_REQUEST:
            other = open_backend(name)
            if other.files == runtime:
                yield other


def name_of(backend: Backend) -> str | None:
    """Return the name of a backend; None for one of the user's own."""
    return next((name for name in BACKENDS if open_backend(name) is backend), None)


def open_backend(name: str) -> Backend:
    """Return the backend of a runtime; its driver is imported when it is used.

    Raises:
        BadInputError: there is no such runtime.
    """
    if name not in BACKENDS:
        raise BadInputError(f"unknown backend '{name}'{meant(name, BACKENDS)}")
    backend: Backend = import_module(f"edgedl.runtime.backends.{name}").BACKEND
    return backend
