"""The facts about this machine, read a second way."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from edgedl.runtime.measure.device import RELEVANT_FLAGS, RunContext, run_context

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def context():
    return run_context()


def test_versions(context):
    assert context.python == ".".join(platform.python_version_tuple())
    assert context.packages["numpy"] == np.__version__
    assert context.packages["onnxruntime"] == onnxruntime.__version__
    assert platform.system() in context.os


def test_cores(context):
    assert context.cores == os.cpu_count()


@pytest.mark.skipif(not MEMINFO.exists(), reason="Linux only")
def test_memory_is_what_the_kernel_says(context):
    total = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal"))
    assert context.memory_bytes == pytest.approx(int(total.split()[1]) * 1024, rel=0.01)


@pytest.mark.skipif(not CPUINFO.exists(), reason="Linux only")
def test_instruction_sets_are_the_kernels(context):
    words = set(CPUINFO.read_text().split())
    assert context.isa == tuple(f for f in RELEVANT_FLAGS if f in words)
    assert context.cpu in CPUINFO.read_text() or context.cpu in {platform.processor(), "unknown"}


def test_load_and_temperature_are_plausible_or_absent(context):
    assert context.load_1min is None or 0 <= context.load_1min < 10_000
    assert context.temperature_c is None or -50 < context.temperature_c < 150


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").is_dir(), reason="no git checkout"
)
def test_git_revision(context):
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=60
    )
    assert context.git_revision == done.stdout.strip()


def test_round_trip(context):
    assert msgspec.json.decode(msgspec.json.encode(context), type=RunContext) == context
    assert msgspec.convert(msgspec.to_builtins(context), RunContext) == context
