"""What it takes to compress a network: processor time and memory of ``edgedl compress``.

Run as ``python -m benchmarks.making SUBJECT [OPTION...]``; options are the command's, such as
``--target ort``. Linux only. Memory is the proportional set size of the process and its children,
all together, looked at twice a second: what they share counts once.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

from edgedl.tools.bench.result import Result
from edgedl.tools.report.table import to_markdown

INTERVAL_S = 0.5
MEGABYTE = 1e6


def main(subject: str, options: list[str]) -> None:
    """Run the command, print what each kind of step took and the peak of memory."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "edgedl", "compress", subject, "--fresh", "--threads", "1"]
        process = psutil.Popen(
            [*command, *options, "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, _memory(process))
            time.sleep(INTERVAL_S)
        if process.returncode:
            raise SystemExit(f"edgedl compress {subject} ended with exit code {process.returncode}")
        steps = msgspec.json.decode((out / "result.json").read_bytes(), type=Result).steps
    kinds: dict[str, tuple[float, float]] = {}
    for step in steps:
        wall, cpu = kinds.get(step.kind, (0.0, 0.0))
        kinds[step.kind] = wall + step.seconds, cpu + step.cpu_seconds
    kinds["all"] = sum(s.seconds for s in steps), sum(s.cpu_seconds for s in steps)
    rows = [[kind, f"{wall:.0f}", f"{cpu:.0f}"] for kind, (wall, cpu) in kinds.items()]
    print(f"{subject}: at most {peak / MEGABYTE:.0f} MB\n")
    print(to_markdown(["step", "seconds", "processor seconds"], rows))


def _memory(process: psutil.Process) -> int:
    """Return the bytes of a process and its children; one that has just ended has none."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
