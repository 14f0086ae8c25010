"""Made-up measurements for tests of what is done with measurements."""

from collections.abc import Sequence

import msgspec

from edgedl.runtime.measure.device import run_context
from edgedl.tools.bench.recommend import drop_verdict, recommend, speed_verdict
from edgedl.tools.bench.result import (
    Candidate,
    Drop,
    Latency,
    NoiseFloor,
    NotMeasured,
    Result,
    Score,
    Speedup,
)


def candidate(
    name: str,
    ratio: tuple[float, float],
    drop: tuple[float, float] = (0, 0),
    size: int = 100,
    same_runtime: tuple[float, float] | None = None,
) -> Candidate:
    backend, precision = name.split("-")
    middle = sum(ratio) / 2
    own = same_runtime or ratio
    return Candidate(
        name=name,
        backend=backend,
        precision=precision,
        runtime="test",
        size_bytes=size,
        score=Score("top1", 0.9, 1000, (0.88, 0.92)),
        drop=Drop(sum(drop) / 2, drop, 0, 0, 1.0, drop_verdict(*drop, None)),
        latency=(Latency(1.0, (0.9, 1.1), None, None, 64, 662, 40, 1, "single_stream", True),),
        speedup=(Speedup(middle, ratio, 1, speed_verdict(*ratio), sum(own) / 2, own),),
        cold_start=None,
        parity=None,
    )


def judged(candidates: Sequence[Candidate], max_drop_pp: float | None) -> list[Candidate]:
    """Return the candidates with their drops judged against a budget."""

    def judge(drop: Drop) -> Drop:
        return msgspec.structs.replace(drop, verdict=drop_verdict(*drop.ci95, max_drop_pp))

    return [msgspec.structs.replace(c, drop=judge(c.drop)) for c in candidates]


def make_result(title: str = "tiny", max_drop_pp: float | None = None) -> Result:
    """Return a result with a baseline, a faster and a slower artifact."""
    measured = (
        candidate("ort-float32", (1.0, 1.0), size=400),
        candidate("ort-int8", (0.55, 0.65), (-0.1, 0.3)),
        candidate("tflite-int8", (1.1, 1.3), (-0.2, 0.2)),
    )
    candidates = tuple(judged(measured, max_drop_pp))
    return Result(
        title=title,
        run_context=run_context(),
        baseline="ort-float32",
        candidates=candidates,
        noise_floor=(NoiseFloor(1, 1.001, (0.99, 1.01)),),
        recommendation=recommend(candidates, max_drop_pp),
        not_measured=(NotMeasured("tensorrt-int8", "no <GPU> & no driver"),),
        max_drop_pp=max_drop_pp,
    )
