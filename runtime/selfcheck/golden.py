"""Run the golden inputs of a bundle and compare: does this machine compute what it must?"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.golden import GOLDEN, golden_inputs, golden_outputs
from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.loaded_model import LoadedModel
from edgedl.runtime.selfcheck.saturation import saturation
from edgedl.runtime.tensors import Floats


@dataclass(frozen=True)
class GoldenCheck:
    """Result for one artifact.

    Attributes:
        artifact: its name.
        max_abs_error: largest difference, of the output that comes nearest to what it may be.
        tolerance: largest allowed difference of that output.
        why: what this processor does to a file that failed, and what to do; empty if unknown.
    """

    artifact: str
    max_abs_error: float
    tolerance: float
    why: str = ""

    @property
    def share(self) -> float:
        """The difference over what it may be."""
        if self.tolerance:
            return self.max_abs_error / self.tolerance
        return np.inf if self.max_abs_error else 0.0

    @property
    def passed(self) -> bool:
        """Whether the outputs are what they must be."""
        return self.max_abs_error <= self.tolerance

    def describe(self) -> str:
        """Return how it did, in a few words."""
        verdict = "ok" if self.passed else "FAILED"
        why = f"; {self.why}" if self.why else ""
        return (
            f"{verdict}, golden outputs differ by {self.max_abs_error:.3g} "
            f"(allowed {self.tolerance:.3g}){why}"
        )


def check_golden(model: LoadedModel) -> GoldenCheck:
    """Run the golden inputs and compare.

    Raises:
        IntegrityError: the golden file is damaged or has no vectors for this artifact.
    """
    name = model.artifact.name
    outputs = model(*golden_inputs(model.bundle))
    expected = golden_outputs(model.bundle, name, len(outputs))
    errors = [_largest_error(y, wanted) for y, wanted in zip(outputs, expected, strict=True)]
    allowed = model.artifact.golden_tolerances
    if len(allowed) != len(errors):
        raise IntegrityError(
            f"{name} has {len(errors)} outputs and tolerances for {len(allowed)} of them"
        )
    checks = [
        GoldenCheck(name, error if np.isfinite(error) else np.inf, tolerance)
        for error, tolerance in zip(errors, allowed, strict=True)
    ]
    worst = max(checks, key=lambda check: check.share)
    if worst.passed:
        return worst
    return replace(worst, why=saturation(model.bundle.manifest, model.artifact))


def _largest_error(found: Floats, expected: npt.NDArray[np.generic]) -> float:
    if expected.shape != found.shape or expected.dtype.kind != "f":
        raise IntegrityError(
            f"{GOLDEN} expects {expected.dtype} {list(expected.shape)}, "
            f"the network gives {list(found.shape)}"
        )
    return float(np.abs(found - expected.astype(np.float32)).max())
