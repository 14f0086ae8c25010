"""Kept results from the command line; plans; teachers."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from command import Run
from tiny import make_net, make_subject

from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.recipe.apply_recipe import StageRunner
from edgedl.compress.recipe.default_recipe import fitting_recipe
from edgedl.compress.recipe.store.ingredients import Provenance
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT
from edgedl.compress.toolchain import toolchain
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.progress import SILENT
from edgedl.tools.jobs.plan import plan
from edgedl.tools.jobs.teachers import find_teacher
from edgedl.tools.jobs.wish import Wish

RECIPE = """\
description: small
stages:
  - stage: prune_channels
    multiple: 2
  - stage: fine_tune
    epochs: 2
    samples: 32
    batch_size: 16
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgedl" / "stages"


@pytest.mark.slow
def test_a_second_run_reuses_and_says_so(
    edgedl: Run, subject_file: Path, recipe: Path, own_cache: Path, tmp_path: Path
) -> None:
    arguments = ("compress", f"{subject_file}:subject", "--recipe", recipe, "--target", "ort")
    plan = edgedl(*arguments, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "epoch" not in plan.stderr
    assert plan.stdout.splitlines()[0].startswith("prune_channels (multiple=2): about ")
    assert plan.stdout.splitlines()[-1].startswith("2 stages, 0 cached: about ")
    assert edgedl("cache").stdout == f"0 in {own_cache}, 0.0 MB\n"

    first = edgedl(*arguments, "--threads", 1, "--out", tmp_path / "first")
    assert first.returncode == 0, first.stderr
    assert "reused" not in first.stderr
    second = edgedl(*arguments, "--threads", 1, "--out", tmp_path / "second")
    assert second.stderr.count("reused") == 2
    weights = [tmp_path / n / "bundle" / "network.safetensors" for n in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "2 stages, 2 cached: about 0 s" in edgedl(*arguments, "--dry-run").stdout

    rows = edgedl("cache").stdout.splitlines()
    assert len(rows) == 3
    key = next(row for row in rows if "fine_tune of tiny" in row).split()[0]
    told = edgedl("cache", "explain", key[:8]).stdout
    assert '"epochs":2' in told
    assert "data, split calibration: " in told
    assert f"torch: {version('torch')}" in told
    assert edgedl("cache", "explain", "zz").returncode == 2
    assert edgedl("cache", "prune").stdout.startswith("0 removed")
    assert edgedl("cache", "prune", "--days", 0).stdout.startswith("2 removed")
    assert edgedl("cache").stdout == f"0 in {own_cache}, 0.0 MB\n"


def test_a_wish_for_a_device_takes_the_place_of_the_subjects_own(subject_file: Path) -> None:
    wish = Wish(f"{subject_file}:subject", None, "default", (), (), (), 0)
    there = replace(wish, device=torch.device("cuda"))
    assert [w.job().subject.device.type for w in (wish, there)] == ["cpu", "cuda"]


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "kept"), [(16, True), (128, False)])
def test_a_plan_applies_stages_of_seconds_to_find_what_is_kept_behind_them(
    samples: int, kept: bool, subject_file: Path, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(
        "description: small\nstages:\n"
        f"  - {{stage: equalize, samples: {samples}, batch_size: 16}}\n"
        "  - {stage: quantize_static, samples: 16}\n"
    )
    job = Wish(f"{subject_file}:subject", None, str(recipe), (), (), (ORT,), 0).job()
    store, subject, found = StageStore(tmp_path / "store"), job.subject, job.recipe
    assert found is not None
    graph = trace(subject.module, subject.example_inputs())
    state = ModelState(subject, graph)
    fitted = fitting_recipe(graph, found, job.targets, (), SILENT)
    provenance = Provenance(state, toolchain())
    StageRunner(store, provenance).run(fitted.stages, state)
    lines = plan(job, store, SILENT)
    assert [line.kept is not None for line in lines] == [False, kept]


def test_a_bundle_can_teach(compressed: CompressedModel) -> None:
    teacher = find_teacher(str(compressed.bundle.folder))
    x = torch.rand(3, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(teacher(x)[0], make_subject().module(x), atol=1e-4, rtol=1e-4)
    assert "digest" in teacher.state_dict()


def test_a_subject_can_teach(subject_file: Path) -> None:
    teacher = find_teacher(f"{subject_file}:subject")
    for name, tensor in make_net().state_dict().items():
        assert torch.equal(teacher.state_dict()[name], tensor)


def test_classes_in_another_order_are_refused(
    compressed: CompressedModel, subject_file: Path
) -> None:
    classes = make_subject().task.classes
    for reference in (str(compressed.bundle.folder), f"{subject_file}:subject"):
        find_teacher(reference, classes)
        find_teacher(reference, [f"the {name}" for name in classes])
        with pytest.raises(BadInputError, match="has the classes in another order"):
            find_teacher(reference, classes[::-1])


def test_nobody_teaches_by_an_unknown_name() -> None:
    with pytest.raises(BadInputError, match="unknown model"):
        find_teacher("resnet9-cifar10")


def test_a_teacher_needs_a_stage_that_learns(
    edgedl: Run, subject_file: Path, tmp_path: Path
) -> None:
    subject = f"{subject_file}:subject"
    arguments = ("--recipe", "static_w8c_a8", "--teacher", subject, "--out", tmp_path / "out")
    done = edgedl("compress", subject, *arguments)
    assert done.returncode == 2
    assert "has no stage fine_tune with distil above 0" in done.stderr


def test_out_is_needed_where_something_is_written(edgedl: Run, subject_file: Path) -> None:
    done = edgedl("compress", f"{subject_file}:subject")
    assert done.returncode == 2
    assert "--out" in done.stderr
