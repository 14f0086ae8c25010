"""ONNX Runtime on an NVIDIA GPU."""

from edgedl.runtime.backends.ort import CUDA, OnnxRuntimeBackend

BACKEND = OnnxRuntimeBackend(CUDA)
