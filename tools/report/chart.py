"""The accuracy-against-latency chart, as SVG text."""

import io
import re
from collections.abc import Sequence

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.precision import PRECISIONS
from edgedl.tools.bench.result import Candidate, Result

# In the order of the runtimes and of the precisions; those of other makers come behind.
COLORS = ("#1f5fa8", "#c4580c", "#3d7d2f", "#7a3e9d", "#a8323a", "#5c5c5c")
MARKERS = "D><dv^sPohX*"


def draw(result: Result, threads: int) -> str:
    """Return an ``<svg>`` element: score change against latency ratio, 95 % intervals both ways.

    The best corner is the upper left: faster than the baseline and no score lost.
    """
    index = [latency.threads for latency in result.candidates[0].latency].index(threads)
    figure, axes = plt.subplots(figsize=(8.0, 4.6))
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.axvline(1, color="#999999", linewidth=0.8)
    for candidate in result.candidates:
        _draw_candidate(axes, candidate, index)
    _name(axes, result.candidate(result.baseline), index, "baseline")
    if result.recommendation.name != result.baseline:
        _name(axes, result.candidate(result.recommendation.name), index, "recommended")
    if result.max_drop_pp is not None:
        axes.axhline(-result.max_drop_pp, color="#b00020", linewidth=1, linestyle="--")
        axes.annotate(
            "budget",
            (0, -result.max_drop_pp),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            color="#b00020",
            fontsize=8,
        )
    axes.set_xlabel(
        f"latency ratio to {result.baseline}, {threads} thread(s), batch 1 (left is faster)",
        parse_math=False,
    )
    axes.set_ylabel(
        f"change of {result.candidates[0].score.metric}, points (up is better)", parse_math=False
    )
    axes.set_xlim(left=0)
    axes.margins(y=0.25)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        # A name may have a "$".
        text.set_parse_math(False)
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(
        r"<svg ", '<svg role="img" aria-label="score change against latency ratio" ', svg, count=1
    )


def _draw_candidate(axes: Axes, candidate: Candidate, index: int) -> None:
    speed, drop = candidate.speedup[index], candidate.drop
    x, y = speed.ratio, -drop.pp
    lo, hi = drop.ci95 or (drop.pp, drop.pp)
    axes.errorbar(
        x,
        y,
        xerr=[[max(0.0, x - speed.ci95[0])], [max(0.0, speed.ci95[1] - x)]],
        yerr=[[max(0.0, y + hi)], [max(0.0, -lo - y)]],
        fmt=_of(MARKERS, tuple(PRECISIONS), candidate.precision),
        color=_of(COLORS, RUNTIMES, candidate.backend),
        markersize=7,
        capsize=3,
        linewidth=1.2,
        label=candidate.name,
    )


def _name(axes: Axes, candidate: Candidate, index: int, role: str) -> None:
    """Write the name of a file beside its sign."""
    axes.annotate(
        f"{candidate.name} ({role})",
        (candidate.speedup[index].ratio, -candidate.drop.pp),
        xytext=(-7, 7),
        textcoords="offset points",
        horizontalalignment="right",
        fontsize=8,
        parse_math=False,
    )


def _of(signs: Sequence[str], names: Sequence[str], name: str) -> str:
    """Return the sign of a name, the last one for a name that is not listed."""
    return signs[names.index(name)] if name in names else signs[-1]
