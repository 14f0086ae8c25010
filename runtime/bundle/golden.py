"""Golden vectors: a few inputs and the outputs each artifact must give for them.

A flipped bit in a model file mostly changes its answers without any error. The sha256 catches it
in the file; these catch a runtime that computes something else.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import IntegrityError
from edgedl.runtime.measure.saturation import saturation
from edgedl.runtime.runner import Floats, Runner

GOLDEN = "golden.npz"
GOLDEN_SAMPLES = 5


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


def encode_golden(
    inputs: tuple[npt.NDArray[np.generic], ...], expected: dict[str, tuple[Floats, ...]]
) -> bytes:
    """Return the content of ``golden.npz``: inputs and expected outputs by artifact name."""
    arrays = {f"input/{i}": x for i, x in enumerate(inputs)}
    for name, outputs in expected.items():
        arrays.update({f"{name}/{i}": y for i, y in enumerate(outputs)})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def golden_inputs(bundle: Bundle) -> tuple[npt.NDArray[np.generic], ...]:
    """Return the golden inputs of a bundle, float32 [5, ...] each.

    Raises:
        IntegrityError: the file is damaged or incomplete.
    """
    arrays = _read(bundle)
    return tuple(_take(arrays, f"input/{i}") for i in range(len(bundle.manifest.inputs)))


def check_golden(runner: Runner) -> GoldenCheck:
    """Run the golden inputs and compare.

    Raises:
        IntegrityError: the golden file is damaged or has no vectors for this artifact.
    """
    arrays = _read(runner.bundle)
    name = runner.artifact.name
    outputs = runner(*golden_inputs(runner.bundle))
    errors = [_largest_error(y, _take(arrays, f"{name}/{i}")) for i, y in enumerate(outputs)]
    allowed = runner.artifact.golden_tolerances
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
    return replace(worst, why=saturation(runner.bundle.manifest, runner.artifact))


def _largest_error(found: Floats, expected: npt.NDArray[np.generic]) -> float:
    if expected.shape != found.shape or expected.dtype.kind != "f":
        raise IntegrityError(
            f"{GOLDEN} expects {expected.dtype} {list(expected.shape)}, "
            f"the network gives {list(found.shape)}"
        )
    return float(np.abs(found - expected.astype(np.float32)).max())


def _read(bundle: Bundle) -> dict[str, npt.NDArray[np.generic]]:
    if GOLDEN not in bundle.manifest.files:
        raise IntegrityError(f"{bundle.folder} has no {GOLDEN}")
    content = bundle.read(GOLDEN)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except Exception as error:
        # numpy and zipfile raise many classes here; the sha256 holds, so it was made wrong.
        raise IntegrityError(f"{GOLDEN} is not an archive of arrays ({error})") from error


def _take(arrays: dict[str, npt.NDArray[np.generic]], key: str) -> npt.NDArray[np.generic]:
    if key not in arrays:
        raise IntegrityError(f"{GOLDEN} has no vectors '{key}'")
    return arrays[key]
