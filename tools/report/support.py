"""The support table: every reference model on every runtime in every precision, as Markdown."""

from collections.abc import Mapping

from edgedl.models.reference.pretrained import TrainingRecord, has_weights, load_record
from edgedl.models.reference.table import REFERENCE_MODELS, ReferenceModel
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.task.scores import BITS, bits_of, score_text
from edgedl.tools.bench.result import Candidate, Result, Score
from edgedl.tools.report.table import drop_in_points, to_markdown, with_interval

_INTRODUCTION = """\
# Reference models

Each network below was trained on real data, or published with its weights, and compressed with
`edgedl compress NAME --recipe default`. Scores are for the whole test split, on the runtime of the
file, not on torch. Brackets are 95 % intervals. A drop is relative to float32 on ONNX Runtime,
sample by sample. A latency ratio below 1 is faster than float32 on ONNX Runtime, from interleaved
calls with 1 thread and batch 1. Files that are not in a table are listed below it with the reason.

This page is generated from the files in [results](results) by

```sh
edgedl models table docs/results --out docs/reference-models.md
```

and the files by `make reference-models`, which measures each model once: a result is from the
edgedl version of that time and lacks files that were added later. To measure a model again, remove
its result from that folder. `edgedl models show NAME` shows how a network was trained.
"""

_WATCH = """
The windows of `watch` overlap by half and come from three people, so they are not independent:
the intervals of its scores are too narrow for other people. Drops compare the same windows, so
they are less affected.
"""

_BITS = """
Scores are bits per character, the fewer the better; a drop of 1 point is 0.08 bits. Latency is that
of one character.
"""

_OVERVIEW = ("model", "score", "parameters", "MACs", "trained, minutes", "recommended", "ratio")
_HEADERS = ("runtime", "precision", "size KB", "score %", "drop, points", "latency ratio", "speed")


def render(results: Mapping[str, Result]) -> str:
    """Return the page for the results of some reference models, by model name."""
    models = [m for m in REFERENCE_MODELS.values() if m.name in results and has_weights(m)]
    parts = [_INTRODUCTION]
    parts.append(to_markdown(_OVERVIEW, [_overview(m, results[m.name]) for m in models]))
    waiting = [m.name for m in REFERENCE_MODELS.values() if m not in models]
    if waiting:
        parts.append(f"\nNot measured yet: {', '.join(f'`{name}`' for name in waiting)}.")
    if any(m.dataset == "watch" for m in models):
        parts.append(_WATCH)
    for model in models:
        parts += _section(model, results[model.name])
    return "\n".join(parts) + "\n"


def _overview(model: ReferenceModel, result: Result) -> tuple[str, ...]:
    record = load_record(model)
    chosen = result.candidate(result.recommendation.name)
    speed = chosen.speedup[0]
    return (
        f"[{model.name}](#{model.name})",
        score_text(record.metric, record.test_score_percent / 100),
        str(record.parameters),
        str(record.macs),
        _minutes(record),
        chosen.name,
        "1" if chosen.name == result.baseline else with_interval(speed.ratio, speed.ci95, ".2f"),
    )


def _minutes(record: TrainingRecord) -> str:
    return "" if record.training_minutes is None else f"{record.training_minutes:.0f}"


def _section(model: ReferenceModel, result: Result) -> list[str]:
    context, metric = result.run_context, result.candidates[0].score.metric
    headers = tuple("bits" if metric == BITS and h == "score %" else h for h in _HEADERS)
    lines = [_measured(c, result.baseline) for c in result.candidates]
    return [
        f"\n## {model.name}\n",
        f"{model.paper}. {metric} on {result.candidates[0].score.n} "
        f"samples of `{model.dataset}`; {context.cpu}.\n",
        *([_BITS] if metric == BITS else []),
        to_markdown(headers, lines),
        f"\nRecommended: {result.recommendation.name}: {result.recommendation.reason}.\n",
        *_refusals(result),
    ]


def _refusals(result: Result) -> list[str]:
    """Return a bullet for every file that has no row above."""
    return [
        f"- `{item.what}`: {item.why}"
        for item in result.not_measured
        if item.what.split("-")[0] in RUNTIMES
    ]


def _measured(candidate: Candidate, baseline: str) -> tuple[str, ...]:
    score, drop, speed = candidate.score, candidate.drop, candidate.speedup[0]
    is_baseline = candidate.name == baseline
    return (
        candidate.backend,
        candidate.precision,
        f"{candidate.size_bytes / 1000:.1f}",
        _score(score),
        "baseline" if is_baseline else drop_in_points(drop),
        "1" if is_baseline else with_interval(speed.ratio, speed.ci95, ".3f"),
        "" if is_baseline else speed.verdict,
    )


def _score(score: Score) -> str:
    low, high = score.ci95
    if score.metric == BITS:
        return with_interval(bits_of(score.value), (bits_of(high), bits_of(low)), ".3f")
    return with_interval(100 * score.value, (100 * low, 100 * high), ".2f")
