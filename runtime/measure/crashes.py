"""Find files that end the process which loads and runs them: a crash cannot be caught.

As a module it is the child process that tries them. Into a journal, a file of its own that no
runtime writes to, it writes every artifact's name when it begins and when it has ended.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.golden import golden_inputs
from edgedl.runtime.child_process import ending, last_line
from edgedl.runtime.errors import EdgedlError, FileFailedError
from edgedl.runtime.loaded_model import LoadedModel

# The largest file seen takes 20 s to load.
LIMIT_S = 300


def find_failures(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the artifacts of a bundle that crash or hang their runtime, or raise what none should.

    Every artifact is tried, whatever the ones before it did.

    Args:
        folder: of the bundle, with its golden inputs.
        names: of the artifacts to try. What a runtime refuses with an error of edgedl's own is no
            failure: whoever asked will meet it, too, and can tell more.

    Returns:
        Artifact name -> what happened, as a sentence whose subject is the artifact.

    Raises:
        EdgedlError: a child process ended before it came to an artifact.
    """
    pending = list(names)
    failures: dict[str, str] = {}
    while pending:
        done, outcomes = _try_in_child(folder, pending)
        if not outcomes:
            raise EdgedlError(
                f"the process that tries the files of {folder} ended before the first "
                f"({ending(done)}): {last_line(done.stderr)}"
            )
        for name, outcome in outcomes.items():
            if outcome is None and done.returncode == -getattr(signal, "SIGALRM", 0):
                failures[name] = f"does not answer within {LIMIT_S} s when it is loaded and run"
            elif outcome is None:
                failures[name] = f"crashes its runtime when it is loaded or run ({ending(done)})"
            elif outcome:
                failures[name] = outcome
        pending = pending[len(outcomes) :]
    return failures


def _try_in_child(
    folder: Path, names: Sequence[str]
) -> tuple[subprocess.CompletedProcess[str], dict[str, str | None]]:
    """Return how a child ended, and its journal: name -> failure, "", or None if it has no end."""
    with tempfile.TemporaryDirectory() as place:
        journal = Path(place) / "journal"
        journal.touch()
        module = [sys.executable, "-m", "edgedl.runtime.measure.crashes"]
        done = subprocess.run(
            [*module, str(folder), str(journal), *names],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        return done, dict(json.loads(line) for line in journal.read_text().splitlines())


def _try(folder: Path, journal: Path, names: Sequence[str]) -> None:
    bundle = Bundle.open(folder)
    for name in names:
        with journal.open("a") as file:
            print(json.dumps([name, None]), file=file)
        if hasattr(signal, "alarm"):
            # Its default ends the process, also where native code never returns.
            signal.alarm(LIMIT_S)
        outcome = _outcome(bundle, name)
        with journal.open("a") as file:
            print(json.dumps([name, outcome]), file=file)


def _outcome(bundle: Bundle, name: str) -> str:
    try:
        with LoadedModel(bundle, bundle.artifact(name)) as runner:
            runner(*golden_inputs(bundle))
    except FileFailedError as error:
        kind = type(error.__cause__).__name__
        return f"raises {kind} when it is loaded or run: {error.reason}"
    except EdgedlError:
        return ""
    except Exception as error:
        said = " ".join(str(error).split())
        return f"raises {type(error).__name__} when it is loaded or run: {said}"
    return ""


if __name__ == "__main__":
    _try(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
