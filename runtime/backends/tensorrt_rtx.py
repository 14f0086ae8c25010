"""TensorRT for RTX, NVIDIA's library for desktop GPUs. It runs the files made for TensorRT."""

from edgedl.runtime.backends.engines import EngineBackend

BACKEND = EngineBackend("tensorrt_rtx")
