"""Find out in another process which files crash their runtime; a crash cannot be caught.

As a module it is that process: it loads and runs artifacts, and prints each one's name after it.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.runner import Runner


def find_crashes(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """Return the artifacts of a bundle that end the process which loads and runs them.

    Args:
        folder: of the bundle, with its golden inputs.
        names: of the artifacts to try. What a runtime refuses with an error is no crash.

    Returns:
        Artifact name -> number of the signal that ended the process.
    """
    pending = list(names)
    crashes: dict[str, int] = {}
    while pending:
        command = [sys.executable, "-m", "edgedl.runtime.measure.crashes", str(folder), *pending]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode >= 0:
            return crashes
        survived = len(done.stdout.splitlines())
        crashes[pending[survived]] = -done.returncode
        pending = pending[survived + 1 :]
    return crashes


def _try(folder: Path, names: Sequence[str]) -> None:
    bundle = Bundle.open(folder)
    for name in names:
        try:
            with Runner(bundle, bundle.artifact(name)) as runner:
                runner(*golden_inputs(bundle))
        except EdgedlError as error:
            # Whoever asked will meet it, too, and can tell more.
            print(error, file=sys.stderr)
        print(name, flush=True)


if __name__ == "__main__":
    _try(Path(sys.argv[1]), sys.argv[2:])
