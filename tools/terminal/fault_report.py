"""A file on a fault of edgedl's own, which the user can attach to a report."""

import platform
import shlex
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version

import edgedl
from edgedl.compress.errors import attached_graph
from edgedl.runtime.backends.runtimes import RUNTIMES, open_backend
from edgedl.tools.terminal.host_packages import HOST_PACKAGES


def write_report(error: BaseException, arguments: list[str]) -> str:
    """Write a new file into the system's temporary folder, and say where it is.

    It holds versions, the command line, the system, the traceback, and the operators of the graph
    that was worked on. It holds no weights and no data.

    Args:
        error: the fault.
        arguments: of the command.

    Returns:
        One clause for the terminal; it says so where the file cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="edgedl-fault-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(_report(error, arguments))
    except OSError as refused:
        reason = refused.strerror or refused
        return f"'edgedl --debug ...' shows where, a report could not be written ({reason})"
    return f"please report it with the file {file.name}"


def _report(error: BaseException, arguments: list[str]) -> str:
    parts = {
        "command": shlex.join(["edgedl", *arguments]),
        "versions": "\n".join(_versions()),
        "system": f"{platform.platform()}, {platform.machine()}",
        "traceback": "".join(traceback.format_exception(error)).rstrip(),
        "graph": attached_graph(error) or "no graph yet",
    }
    return "\n\n".join(f"# {title}\n{text}" for title, text in parts.items()) + "\n"


def _versions() -> list[str]:
    packages = [
        "numpy",
        *(package.distribution for package in HOST_PACKAGES.values()),
        *(open_backend(name).package for name in RUNTIMES),
    ]
    lines = [f"edgedl {edgedl.__version__}", f"python {platform.python_version()}"]
    return lines + [f"{name} {_version(name)}" for name in dict.fromkeys(packages)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
