"""Versions of everything that has a hand in the files."""

from importlib.metadata import PackageNotFoundError, version

import torch

import edgedl

TOOLCHAIN = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "litert-torch",
    "litert-quantizer",
    "ai-edge-litert",
    "tensorrt-rtx",
    "numpy",
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
