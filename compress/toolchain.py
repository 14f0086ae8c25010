"""Versions of everything that has a hand in the files."""

from importlib.metadata import PackageNotFoundError, version

import torch

import edgedl
from edgedl.runtime.backends.runtimes import RUNTIMES, open_backend

TOOLCHAIN = (
    "torch",
    "onnx",
    "onnxscript",
    "litert-torch",
    "litert-quantizer",
    "tensorrt-rtx",
    "numpy",
    *(open_backend(name).package for name in RUNTIMES),
)


def toolchain() -> dict[str, str]:
    """Return the versions of everything that has a hand in the files."""
    versions = {"edgedl": edgedl.__version__, "torch_threads": str(torch.get_num_threads())}
    for package in TOOLCHAIN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
