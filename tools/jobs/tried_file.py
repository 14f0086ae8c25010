"""A file that the search for a budget has measured, and what it is worth."""

from dataclasses import dataclass

from edgedl.runtime.bundle.certificates import Finding
from edgedl.runtime.measure.estimate import Estimate
from edgedl.tools.bench.recommend import speed_verdict
from edgedl.tools.bench.result import Drop
from edgedl.tools.report.table import describe_verdict


@dataclass(frozen=True)
class TriedFile:
    """One file of a recipe, measured on the samples that choose.

    Attributes:
        name: of the file. runtime: that it is for. precision: of it, by name.
        drop: of it.
        ratio: its latency over its own runtime's float32 file of the network as it was.
        time: its latency over one file, the same for all.
        findings: parts of outputs that it destroys.
    """

    name: str
    runtime: str
    precision: str
    drop: Drop
    ratio: Estimate
    time: float
    findings: tuple[Finding, ...] = ()

    @property
    def faster(self) -> bool:
        """Whether it is certainly faster than float32 on its runtime."""
        return speed_verdict(self.ratio.lo, self.ratio.hi) == "faster"

    @property
    def fits(self) -> bool:
        """Whether it can be chosen: certainly faster, certainly within the budget, nothing lost."""
        return self.faster and self.drop.within_budget and not self.findings

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """A key by which the better of two files is the smaller one.

        Of files that fit the one that answers first is better, of others that are faster the one
        that is nearer to the budget.
        """
        upper = self.drop.ci95[1] if self.drop.ci95 else self.drop.pp
        by = upper if self.faster and not self.fits else self.time
        return not self.fits, not self.faster, by

    @property
    def outcome(self) -> str:
        """What it is worth, in a few words; "fits" if it can be chosen."""
        if self.fits:
            return "fits"
        if self.findings:
            return self.findings[0].describe()
        if not self.faster:
            return f"{self.drop.verdict}, but not faster than float32 on its own runtime"
        return describe_verdict(self.drop)
