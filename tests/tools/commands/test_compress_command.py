"""The main job from the command line, end to end, on a network of the user's own."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run
from safetensors.torch import load
from tiny import make_net, make_subject

from edgedl.compress.recipe.rebuild import rebuild
from edgedl.runtime.backends.runtimes import RUNTIMES
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import InvalidMeasurementError
from edgedl.runtime.runner import Runner
from edgedl.tools.bench.result import load_result


@pytest.mark.slow
def test_main_job_and_a_missed_budget(edgedl: Run, subject_file: Path, tmp_path: Path) -> None:
    """A budget of nothing cannot be met for certain: exit 1, and everything is written."""
    out = tmp_path / "out"
    recipe = ("--recipe", "static_w8c_a8_rounded")
    # Almost certain, so that no chance improvement of an untrained network is enough.
    budget = ("--max-drop", 0, "--confidence", 0.99999)
    done = edgedl("compress", f"{subject_file}:subject", *recipe, *budget, "--out", out)
    assert done.returncode == 1, done.stderr
    assert "is certainly within the budget of 0.0 points" in done.stderr
    assert {p.name for p in out.iterdir()} == {
        "bundle",
        "result.json",
        "samples.npz",
        "report.html",
    }
    bundle = Bundle.open(out / "bundle")
    bundle.verify()
    names = [a.name for a in bundle.manifest.artifacts]
    float_files = {f"{t}-{p}" for t in RUNTIMES for p in ("float32", "float16")}
    assert {*float_files, *(f"{t}-int8" for t in RUNTIMES)} <= set(names)
    result = load_result(out)
    measured, missing = {c.name for c in result.candidates}, {m.what for m in result.not_measured}
    assert {n for n in names if n.startswith(("ort-", "openvino-", "tflite-"))} <= measured
    assert {n for n in names if n.startswith("tensorrt-")} <= missing
    assert bundle.manifest.recommended == result.recommendation.name
    check_derived_numbers(out)


def check_derived_numbers(out: Path) -> None:
    """Every statistic must follow from the raw calls beside it."""
    result = load_result(out)
    with np.load(out / "samples.npz") as samples:
        for candidate in result.candidates:
            for latency, speedup in zip(candidate.latency, candidate.speedup, strict=True):
                calls = samples[f"{latency.threads}/{candidate.name}"]
                loads, blocks, _ = calls.shape
                assert 4 <= loads <= 10
                assert loads * blocks >= 40
                assert latency.n == calls.size
                base = samples[f"{latency.threads}/{result.baseline}"]
                own, base = (np.log(np.median(x, axis=2)) for x in (calls, base))
                found = np.exp(np.median(own, axis=1).mean()) / 1e6
                np.testing.assert_allclose(latency.median_ms, found)
                np.testing.assert_allclose(
                    speedup.ratio, np.exp(np.median(own - base, axis=1).mean())
                )
                assert speedup.ci95[0] <= speedup.ratio <= speedup.ci95[1]


@pytest.mark.slow
def test_a_pruned_network_is_measured_against_the_one_it_was(
    edgedl: Run, subject_file: Path, tmp_path: Path
) -> None:
    recipe, out = tmp_path / "mine.yaml", tmp_path / "out"
    recipe.write_text(
        "description: mine\n"
        "stages:\n"
        "  - {stage: prune_channels, ratio: 0.5, multiple: 1}\n"
        "  - {stage: fine_tune, epochs: 1, batch_size: 16}\n"
        "  - {stage: quantize_static, samples: 32}\n"
    )
    arguments = ["--recipe", recipe, "--target", "ort", "--threads", "1", "--out", out]
    done = edgedl("compress", f"{subject_file}:subject", *arguments)
    assert done.returncode == 0, done.stderr
    result = load_result(out)
    assert result.baseline == "parent:ort-float32"
    sizes = {c.name: c.size_bytes for c in result.candidates}
    assert sizes["ort-float32"] < sizes["parent:ort-float32"]
    bundle = Bundle.open(out / "bundle")
    bundle.verify()
    own = {artifact.name for artifact in bundle.manifest.artifacts}
    assert own == {"ort-float32", "ort-float16", "ort-int8"}
    assert {m.artifact for m in bundle.manifest.metrics} == own
    advised = result.recommendation.name
    assert bundle.manifest.recommended == (advised if advised in own else None)
    verified = edgedl("verify", out / "bundle")
    assert verified.returncode == 0, verified.stderr
    module, history = make_net(), bundle.manifest.history
    weights = load((out / "bundle" / "network.safetensors").read_bytes())
    again = rebuild(module, make_subject().example_inputs(), history, weights)
    batch = next(iter(make_subject().task.batches("test", 8)))
    with Runner(bundle, bundle.artifact("ort-float32")) as runner:
        (expected,) = runner(*batch.inputs)
    with torch.no_grad():
        found = again(torch.tensor(batch.inputs[0])).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_json_on_stdout_and_nothing_else(edgedl: Run, subject_file: Path, tmp_path: Path) -> None:
    arguments = ["--recipe", "float", "--target", "ort", "--threads", "1", "--json"]
    done = edgedl("compress", f"{subject_file}:subject", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [c["name"] for c in result["candidates"]] == ["ort-float32", "ort-float16"]
    bundle = tmp_path / "out" / "bundle"

    bench = ["--task", f"{subject_file}:subject", "--threads", "1"]
    missed = edgedl("bench", bundle, *bench, "--budget", "size_kb<1", "--out", tmp_path / "b1")
    assert missed.returncode == 1
    assert "size_kb" in missed.stderr
    assert (tmp_path / "b1" / "summary.csv").is_file()
    unknown = edgedl("bench", bundle, *bench, "--budget", "speed<1", "--out", tmp_path / "b2")
    assert unknown.returncode == 2
    no_task = edgedl("bench", bundle, "--threads", "1", "--out", tmp_path / "b3")
    assert no_task.returncode == 2
    assert "--task" in no_task.stderr


@pytest.mark.slow
def test_a_budget_without_a_recipe_searches_one(
    edgedl: Run, subject_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("--max-drop", 100, "--confidence", 0.9, "--target", "ort", "--threads", 1)
    limit = ("--search-minutes", 0)
    done = edgedl("compress", f"{subject_file}:subject", *arguments, *limit, "--out", out)
    assert done.returncode == 0, done.stderr
    result = load_result(out)
    search = result.search
    assert search is not None
    assert "recipes tried, cheapest first" in done.stdout
    assert "How the recipe was chosen" in (out / "report.html").read_text()
    assert search.attempts[0].recipe == search.chosen == "default (static_w8c_a8_rounded)"
    assert search.met == (search.attempts[0].outcome == "fits")
    assert "(--search-minutes)" in done.stdout
    # The samples that chose and those of the final score are all of the test split, none twice.
    assert search.samples + result.candidates[0].score.n == 600
    assert sorted(p.name for p in out.iterdir()) == [
        "bundle",
        "report.html",
        "result.json",
        "samples.npz",
    ]
    assert result.confidence == 0.9


def test_a_confidence_that_is_none(edgedl: Run, subject_file: Path, tmp_path: Path) -> None:
    done = edgedl(
        "compress", f"{subject_file}:subject", "--confidence", 1, "--out", tmp_path / "out"
    )
    assert done.returncode == 2
    assert "--confidence is a share" in done.stderr


@pytest.mark.slow
def test_a_bundle_outlives_a_measurement_that_fails(
    edgedl: Run, subject_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_clock(*_: object) -> None:
        raise InvalidMeasurementError("the clock cannot resolve a call")

    monkeypatch.setattr("edgedl.tools.bench.run_files.measure_loads", no_clock)
    out = tmp_path / "out"
    options = ("--recipe", "float", "--target", "ort", "--threads", 1)
    done = edgedl("compress", f"{subject_file}:subject", *options, "--out", out)
    assert done.returncode == 3
    assert f"the bundle is in {out / 'bundle'}; measure it with 'edgedl bench" in done.stderr
    assert "Traceback" not in done.stderr
    bundle = Bundle.open(out / "bundle")
    bundle.verify()
    assert {a.name for a in bundle.manifest.artifacts} == {"ort-float32", "ort-float16"}
    assert not (out / "result.json").exists()


@pytest.mark.slow
def test_a_report_that_cannot_be_drawn_loses_nothing(
    edgedl: Run, subject_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    out = tmp_path / "out"
    options = ("--recipe", "float", "--target", "ort", "--threads", 1)
    done = edgedl("compress", f"{subject_file}:subject", *options, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "the report could not be written (jinja2 is missing" in done.stderr
    assert f"try again with 'edgedl report {out} --out FILE.html'" in done.stderr
    assert {p.name for p in out.iterdir()} == {"bundle", "result.json", "samples.npz"}
