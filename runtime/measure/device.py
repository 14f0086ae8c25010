"""What machine is this: the facts that must stand beside every measurement."""

import os
import platform
from collections.abc import Collection
from pathlib import Path

import msgspec

from edgedl.runtime.backends.runtimes import RUNTIMES, open_backend
from edgedl.runtime.measure.amx import REFUSED

# Instruction sets that decide how fast int8 is.
RELEVANT_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimddp",
    "i8mm",
    "sve",
)


# Of x86 processors whose int8 kernels add up in 32 bits.
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


class RunContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine while it measured.

    Attributes:
        cpu: model name; that of the board where the system names no processor.
        isa: instruction sets that matter for int8 and may be used by this process.
        cores: logical cores.
        memory_bytes: physical memory; None where unknown.
        governor: frequency governor; load_1min: load average at the start;
        temperature_c: hottest zone. None where the system does not say.
        os, python: versions. packages: versions of the runtimes.
        git_revision: of the working tree the program runs from; None for an installed package.
    """

    cpu: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    governor: str | None
    load_1min: float | None
    temperature_c: float | None
    os: str
    python: str
    packages: dict[str, str]
    git_revision: str | None


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that matter for int8 and may be used by this process."""
    return _relevant(_cpu()[1])


def run_context() -> RunContext:
    """Describe this machine now. What cannot be read is None, never guessed."""
    cpu, flags = _cpu()
    return RunContext(
        cpu=cpu,
        isa=_relevant(flags),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        load_1min=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        temperature_c=_temperature_c(),
        os=platform.platform(),
        python=platform.python_version(),
        packages=_versions(),
        git_revision=_git_revision(),
    )


def saturates(isa: Collection[str]) -> bool:
    """Return whether integer kernels on these instruction sets add two products in 16 bits.

    Those of x86 without VNNI do: twice 255 times 127 does not fit.

    >>> saturates(("avx2", "avx512f")), saturates(("avx2", "avx_vnni")), saturates(("asimddp",))
    (True, False, False)
    """
    return "avx2" in isa and VNNI.isdisjoint(isa)


def _relevant(flags: set[str]) -> tuple[str, ...]:
    refused = {"amx_int8"} if REFUSED in os.environ else set()
    return tuple(f for f in RELEVANT_FLAGS if f in flags - refused)


def _cpu() -> tuple[str, set[str]]:
    text = _read(Path("/proc/cpuinfo")) or ""
    fields = dict(
        (key.strip(), value.strip())
        for key, _, value in (line.partition(":") for line in text.splitlines())
        if key.strip()
    )
    # ARM kernels name the board, and no processor.
    board = (_read(Path("/proc/device-tree/model")) or "").rstrip("\0")
    name = fields.get("model name") or board or platform.processor() or "unknown"
    return name, set((fields.get("flags") or fields.get("Features") or "").split())


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _temperature_c() -> float | None:
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    found = [int(value) for value in map(_read, zones) if value and value.lstrip("-").isdigit()]
    return max(found) / 1000 if found else None


def _versions() -> dict[str, str]:
    # `edgedl run` asks for the processor alone, and would pay for this import.
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in (*(open_backend(name).package for name in RUNTIMES), "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _git_revision() -> str | None:
    git = Path(__file__).resolve().parents[2] / ".git"
    head = _read(git / "HEAD")
    if head is None or not head.startswith("ref: "):
        return head
    return _read(git / head.removeprefix("ref: "))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
