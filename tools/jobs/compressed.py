"""What ``edgedl.compress_model`` returns."""

from html import escape
from pathlib import Path

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.runner import Runner
from edgedl.tools.bench.result import Candidate, Result
from edgedl.tools.jobs.whole_job import BUNDLE, REPORT, FinishedJob
from edgedl.tools.report.summary import HEADERS, compact_rows, job_text, verdict


class Compressed:
    """What ``compress_model`` has made and measured.

    Attributes:
        folder: holds ``bundle/``, ``result.json`` and ``report.html``.
        bundle: the files that ship.
        result: scores, drops, times and sizes of every file, with their intervals.
        report: path of the page.
        missed: which budget was missed, in one sentence; empty if none was.
    """

    def __init__(self, finished: FinishedJob) -> None:
        """Take a finished job."""
        self.folder: Path = finished.folder
        self.bundle: Bundle = Bundle.open(finished.folder / BUNDLE)
        self.result: Result = finished.result
        self.report: Path = finished.folder / REPORT
        self.missed: str = finished.missed

    @property
    def files(self) -> dict[str, Path]:
        """Return the path of each model file by its name, such as "ort-int8"."""
        return {a.name: self.bundle.folder / a.path for a in self.bundle.manifest.artifacts}

    def runner(self, runtime: str | None = None, threads: int = 1) -> Runner:
        """Load a file: the recommended one, or the best one of a runtime.

        Args:
            runtime: "ort", "openvino" or "tflite"; None for any.
            threads: of the runtime.

        Returns:
            What takes inputs [N, ...] and returns the outputs, as a tuple.

        Raises:
            BadInputError: there is no file for that runtime.
            BackendUnavailableError: the runtime is not installed.
        """
        names = [c.name for c in _best_first(self.result) if runtime in (None, c.backend)]
        return Runner.open(self.bundle.folder, names[0] if names else None, runtime, threads)

    def __repr__(self) -> str:
        """Return the table, the verdict, and where the files are."""
        return job_text(self.result, self.folder)

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        head = "".join(f"<th>{escape(name)}</th>" for name in HEADERS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in compact_rows(self.result)
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{escape(verdict(self.result))}</p>"
            f"<p>{escape(str(self.bundle.folder))}<br>{escape(str(self.report))}</p>"
        )


def _best_first(result: Result) -> list[Candidate]:
    """Return the files: the recommended one, then whole ones before others, the faster first."""
    advised = result.recommendation.name
    return sorted(
        result.candidates,
        key=lambda c: (c.name != advised, bool(c.findings), c.speedup[0].ratio),
    )
