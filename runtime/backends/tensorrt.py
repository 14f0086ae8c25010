"""TensorRT on an NVIDIA GPU."""

from edgedl.runtime.backends.engines import EngineBackend

BACKEND = EngineBackend("tensorrt")
