"""The driver is asked before anything of TensorRT is touched; here it is a small C library."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgedl.runtime import gpu
from edgedl.runtime.errors import BackendUnavailableError
from edgedl.runtime.gpu import Gpu, find_gpu

SOURCE = r"""
#include <string.h>
int cuInit(unsigned f) { return INIT; }
int cuDeviceGet(int *d, int i) { *d = 3; return 0; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetName(char *name, int n, int d) { strncpy(name, "Orin", n); return d != 3; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 7 : -1; return 0; }
int cuGetErrorName(int code, const char **text) { *text = "CUDA_ERROR_NO_DEVICE"; return 0; }
"""
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def library(folder: Path, init: int) -> str:
    source, built = folder / "cuda.c", folder / "libcuda.so"
    source.write_text(SOURCE.replace("INIT", str(init)))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source], check=True)
    return str(built)


def test_without_a_driver_it_says_so(monkeypatch: pytest.MonkeyPatch, refused) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", "libno_such_driver.so.1")
    with refused(BackendUnavailableError, "no NVIDIA driver", "libno_such_driver.so.1"):
        find_gpu()


@needs_compiler
def test_a_driver_without_a_gpu_is_not_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    monkeypatch.setattr(gpu, "LIBRARY", library(tmp_path, 100))
    with refused(BackendUnavailableError, "cuInit fails", "CUDA_ERROR_NO_DEVICE (100)"):
        find_gpu()


@needs_compiler
def test_the_first_gpu_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "nv_tegra_release"
    release.write_text("# R36 (release), REVISION: 4.0\nmore\n")
    monkeypatch.setattr(gpu, "RELEASES", (tmp_path / "none", release))
    monkeypatch.setattr(gpu, "LIBRARY", library(tmp_path, 0))
    assert find_gpu() == Gpu("Orin", "8.7", "CUDA 12.6, # R36 (release), REVISION: 4.0")
