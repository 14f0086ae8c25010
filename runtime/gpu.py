"""The NVIDIA driver and its first GPU, asked without any of NVIDIA's packages.

TensorRT's runtime objects crash where there is no driver, so nothing of it is made before this.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

from edgedl.runtime.errors import BackendUnavailableError

LIBRARY = "libcuda.so.1"
# CUDA driver API: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
MAJOR, MINOR = 75, 76
# Where a desktop's driver and a Jetson's system software say their versions.
RELEASES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))
LONGEST_NAME = 256


@dataclass(frozen=True)
class Gpu:
    """A GPU and its driver.

    Attributes:
        name: as the driver says it.
        compute_capability: of it, such as "8.7".
        driver: CUDA version and release of the driver.
    """

    name: str
    compute_capability: str
    driver: str


def find_gpu() -> Gpu:
    """Return the first GPU.

    Raises:
        BackendUnavailableError: there is no driver, or it finds no GPU; the message says which.
    """
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise BackendUnavailableError(
            f"there is no NVIDIA driver here ({LIBRARY} cannot be loaded)"
        ) from error
    _check(cuda, cuda.cuInit(0), "cuInit")
    device, version = ctypes.c_int(), ctypes.c_int()
    _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    _check(cuda, cuda.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    name = ctypes.create_string_buffer(LONGEST_NAME)
    _check(cuda, cuda.cuDeviceGetName(name, LONGEST_NAME, device), "cuDeviceGetName")
    capability = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        done = cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        _check(cuda, done, "cuDeviceGetAttribute")
        capability.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(capability), _driver(version.value))


def _check(cuda: ctypes.CDLL, code: int, call: str) -> None:
    if code == 0:
        return
    text = ctypes.c_char_p()
    cuda.cuGetErrorName(code, ctypes.byref(text))
    why = (text.value or b"an error without a name").decode(errors="replace")
    raise BackendUnavailableError(f"the NVIDIA driver is here and {call} fails: {why} ({code})")


def _driver(version: int) -> str:
    """Return what tells one driver from another.

    >>> _driver(12060).partition(",")[0]
    'CUDA 12.6'
    """
    parts = [f"CUDA {version // 1000}.{version % 1000 // 10}"]
    for path in RELEASES:
        try:
            parts.append(path.read_text(errors="replace").splitlines()[0].strip())
        except (OSError, IndexError):
            continue
    return ", ".join(parts)
