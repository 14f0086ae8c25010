"""The report is self-contained, complete, and shows in a real browser."""

import csv
import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from command import Run
from measured import make_result
from PIL import Image

from edgedl.runtime.bundle.certificates import Finding, LayerCertificate, LayerParity, Parity
from edgedl.tools.bench.budget import missed, parse_budget
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.result import Attempt, Search, load_result, write_result
from edgedl.tools.report.page import render
from edgedl.tools.report.table import (
    describe_search,
    describe_verdict,
    drop_in_points,
    result_markdown,
    rows,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(render("tiny <net>", [make_result()]))
    return path


def chromium(*arguments: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


class Collector(HTMLParser):
    """Collects table cells and everything that would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_cell = tag in ("td", "th")
        for key, value in attrs:
            if key in ("src", "href") and value and not value.startswith("#"):
                self.loads.append(value)

    def handle_data(self, data: str) -> None:
        if self._in_cell and data.strip():
            self.cells.append(data.strip())


def parse(text: str) -> Collector:
    collector = Collector()
    collector.feed(text)
    return collector


def test_page_loads_nothing_and_escapes_names(page: Path) -> None:
    text = page.read_text()
    found = parse(text)
    assert found.loads == []
    assert "script" not in found.tags
    assert "tiny &lt;net&gt;" in text
    assert "no &lt;GPU&gt; &amp; no driver" in text
    assert not re.search(r"url\((?!#|['\"]?#)", text)


def test_page_shows_every_number_with_its_interval(page: Path) -> None:
    cells = parse(page.read_text()).cells
    assert "+0.10 [-0.10, +0.30]" in cells
    assert "0.600 [0.550, 0.650]" in cells
    assert "no drop shown" in cells
    assert "needs 64 calls" in cells


def test_layers_are_folded_away_and_the_worst_is_said() -> None:
    layers = (
        LayerParity("x", "", "q", 0, 0.0, 0.0, None),
        LayerParity("relu", "stem", "q_1", 1, 0.25, 0.25, 40.5),
        LayerParity("linear", "fc", "q_2", 2, 0.125, 0.1, 38.0),
    )
    certificate = LayerCertificate(32, 0.0, layers)
    floats = ("Softmax", "TopK")
    parity = Parity(500, 0.1, 0.01, 0.02, 1.0, 1.0, "test", certificate, float_operators=floats)
    result = make_result()
    first, *others = result.candidates
    certified = msgspec.structs.replace(first, parity=parity)
    text = render("tiny", [msgspec.structs.replace(result, candidates=(certified, *others))])
    (summary,) = re.findall(r"<summary>(.*?)</summary>", text)
    assert "1 of 3 quantized tensors are the same" in summary
    assert "&#39;relu&#39; differs most (mean 0.2500, max 1 steps)" in summary
    assert "computed in float: Softmax, TopK" in summary
    cells = parse(text).cells
    assert {"stem", "q_1", "0.2500", "25.000 %", "40.5"} <= set(cells)


def test_chart_has_bars_in_both_directions(page: Path) -> None:
    svg = page.read_text().split("<figure>")[1].split("</figure>")[0]
    # matplotlib draws a bar as a collection of one line: two per artifact, in plot and legend.
    assert svg.count('id="LineCollection_') == 2 * 3 * 2


@pytest.mark.slow
@needs_browser
def test_browser_renders_chart_and_tables(page: Path, tmp_path: Path) -> None:
    dom = parse(chromium("--dump-dom", page.as_uri()))
    assert "svg" in dom.tags
    assert "ort-int8" in dom.cells
    shot = tmp_path / "page.png"
    chromium("--hide-scrollbars", "--window-size=1200,1600", f"--screenshot={shot}", page.as_uri())
    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    assert len(pixels) == 1200 * 1600
    # The marker colors of ONNX Runtime and TFLite are on the picture, and most of it is paper.
    for color in ((0x1F, 0x5F, 0xA8), (0x3D, 0x7D, 0x2F)):
        assert (np.abs(pixels.astype(int) - color).max(axis=1) < 8).sum() > 20
    assert (pixels > 250).all(axis=1).mean() > 0.5


@pytest.mark.parametrize("suffix", [".html", ".md", ".csv"])
def test_report_command_draws_several_results(edgedl: Run, tmp_path: Path, suffix: str) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_result(tmp_path / name, make_result(name), {})
    out = tmp_path / f"page{suffix}"
    done = edgedl("report", tmp_path / "first", tmp_path / "second", "--out", out)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    if suffix == ".csv":
        names = [row[1] for row in csv.reader(text.splitlines())]
        assert names.count("ort-int8") == 2
    else:
        assert "first" in text
        assert "second" in text


def test_a_dollar_in_a_name_is_no_formula() -> None:
    result = make_result()
    first, *others = result.candidates
    score = msgspec.structs.replace(first.score, metric="$_{cost} per $")
    first = msgspec.structs.replace(first, name="ort-$^float32", score=score)
    named = msgspec.structs.replace(result, baseline=first.name, candidates=(first, *others))
    assert "<svg" in render("tiny", [named])


def test_findings_and_next_steps_are_on_the_page_and_the_terminal(tmp_path: Path) -> None:
    finding = Finding("y", "scores", "3.0 dB of the float network", "cat", "--keep-float cat")
    result = make_result()
    first, second, *others = result.candidates
    second = msgspec.structs.replace(second, findings=(finding,))
    result = msgspec.structs.replace(
        result, candidates=(first, second, *others), next_steps=("do this",), alerts=("mind",)
    )
    line = f"{second.name}: {finding.describe()}"
    text = result_markdown(result)
    assert text.startswith("warning: mind\n")
    assert f"finding: {line}" in text
    assert text.endswith("next: do this")
    assert rows(result, 1)[1][4].startswith("1 finding, ")
    page = html.unescape(render("tiny", [result]))
    assert page.count(line) == 1
    assert "Next: do this." in page
    assert "mind." in page
    write_result(tmp_path, result, {})
    assert load_result(tmp_path) == result


def test_result_survives_the_disk(tmp_path: Path) -> None:
    result = make_result(max_drop_pp=0.5)
    calls = {"1/ort-int8": np.arange(6).reshape(2, 3)}
    write_result(tmp_path, result, calls)
    assert load_result(tmp_path) == result
    with np.load(tmp_path / "samples.npz") as samples:
        np.testing.assert_array_equal(samples["1/ort-int8"], calls["1/ort-int8"])


def test_a_drop_without_meaning_is_printed_with_its_digits() -> None:
    baseline = np.full(200, 0.9)
    drop = drop_record(baseline, baseline - np.random.default_rng(0).uniform(1e-6, 3e-6, 200), None)
    assert drop.verdict == "no drop shown"
    numbers = [float(x) for x in re.findall(r"[-+][\d.e-]+", drop_in_points(drop))]
    assert drop.ci95 is not None
    np.testing.assert_allclose(numbers, [drop.pp, *drop.ci95], rtol=0.05)


def test_a_drop_of_too_few_samples_has_no_interval_anywhere(tmp_path: Path) -> None:
    drop = drop_record(np.full(4, 0.9), np.array([0.8, 0.9, 0.85, 0.9]), 50.0)
    assert (drop.verdict, drop.more_samples, drop.ci95) == ("inconclusive", 16, None)
    assert drop_record(np.full(4, 0.9), np.full(4, 0.8), None).verdict == "inconclusive"
    result = make_result(max_drop_pp=50.0)
    first, second, *others = result.candidates
    few = msgspec.structs.replace(second, drop=drop)
    result = msgspec.structs.replace(result, candidates=(first, few, *others))
    assert rows(result, 1)[1][3:5] == ("+3.75", "inconclusive, 16 more samples needed")
    write_result(tmp_path, result, {})
    assert load_result(tmp_path) == result
    assert "+3.75" in parse(render("few", [load_result(tmp_path)])).cells
    assert missed(few, parse_budget("drop_pp<50")) == [
        "ort-int8: drop_pp has too few samples for an interval"
    ]
    assert missed(others[0], parse_budget("drop_pp<50")) == []


def test_numbers_of_samples_in_words() -> None:
    drop = make_result().candidates[1].drop
    for more, words in (
        (1, "inconclusive, 1 more sample needed"),
        (7, "inconclusive, 7 more samples needed"),
        (None, "inconclusive, no number of samples will decide it in practice"),
    ):
        open_ = msgspec.structs.replace(drop, verdict="inconclusive", more_samples=more)
        assert describe_verdict(open_) == words
    # Of a drop without a budget it is known for the recommendation alone.
    assert describe_verdict(msgspec.structs.replace(drop, more_samples=7)) == drop.verdict
    attempt = Attempt("float", None, None, None, None, "")
    for count, words in ((1, "on 1 sample that"), (2, "on 2 samples that")):
        assert words in describe_search(Search((attempt,), "float", met=False, samples=count))
