"""The packages that compress, train and report: what they are for, and which extra brings them."""

from typing import NamedTuple

from edgedl.runtime.install import install_line


class HostPackage(NamedTuple):
    """One package that a device does without.

    Attributes:
        distribution: what pip calls it.
        purpose: what it is for.
        extra: of edgedl, that brings it.
    """

    distribution: str
    purpose: str
    extra: str


# By the name they are imported by.
HOST_PACKAGES = {
    "torch": HostPackage("torch", "compress and train", "compress"),
    "onnx": HostPackage("onnx", "ONNX export", "compress"),
    "onnxscript": HostPackage("onnxscript", "ONNX export", "compress"),
    "safetensors": HostPackage("safetensors", "weights", "compress"),
    "yaml": HostPackage("pyyaml", "recipes", "compress"),
    "filelock": HostPackage("filelock", "kept results", "compress"),
    "litert_torch": HostPackage("litert-torch", "TFLite export", "tflite-export"),
    "litert_quantizer": HostPackage("litert-quantizer", "TFLite export", "tflite-export"),
    "tensorrt_rtx": HostPackage("tensorrt-rtx", "check TensorRT files", "tensorrt-check"),
    "accelerate": HostPackage("accelerate", "train in several processes", "distributed"),
    "matplotlib": HostPackage("matplotlib", "reports", "report"),
    "jinja2": HostPackage("jinja2", "reports", "report"),
    "platformdirs": HostPackage("platformdirs", "find data sets", "data"),
    "PIL": HostPackage("pillow", "read pictures", "image"),
}


def how_to_install(module: str | None) -> str | None:
    """Return one line on a module that could not be imported; None for one that is not known."""
    package = HOST_PACKAGES.get((module or "").partition(".")[0])
    if package is None:
        return None
    return f"{package.distribution} is missing: {install_line(package.extra)}"
