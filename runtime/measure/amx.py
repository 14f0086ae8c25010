"""Refuse Intel's AMX tiles to this process.

Both runtimes use the tiles wherever they are granted, and on small int8 networks they are slower
than AVX512-VNNI, on LiteRT threefold (docs/benchmarks.md). Linux grants the tiles on request, and
refuses while the alternate signal stack is too small for them; the kernels then fall back.
"""

import ctypes
import errno
import os
import platform

# Set for child processes, which must refuse for themselves.
REFUSED = "EDGEDL_WITHOUT_AMX"
ARCH_PRCTL = 158
ARCH_REQ_XCOMP_PERM = 0x1023
XFEATURE_XTILEDATA = 18
SMALL_STACK_BYTES = 3600


class _SignalStack(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


_stack = ctypes.create_string_buffer(1 << 16)


def refuse_amx() -> str:
    """Make the kernel refuse AMX tiles to this process; return a sentence on what happened.

    Must run before any runtime is loaded.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "AMX: not an x86-64 Linux, nothing to refuse"
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.cast(_stack, ctypes.c_void_p).value
    libc.sigaltstack(ctypes.byref(_SignalStack(address, 0, SMALL_STACK_BYTES)), None)
    os.environ[REFUSED] = "1"
    refused = libc.syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0
    if refused and ctypes.get_errno() == errno.ENOSPC:
        return "AMX: refused to this process"
    return "AMX: this CPU has none" if refused else "AMX: still granted"
