"""Which recipes a budget is looked for with, what their files are worth, which samples choose."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import Run
from tiny import make_subject, make_task

from edgedl.compress.recipe.stages import STAGES
from edgedl.compress.subject.selection import SHARE, divide
from edgedl.compress.targets.named import ORT, ORT_AVX2, TFLITE
from edgedl.compress.targets.target import Target, load_target
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.progress import SILENT
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.entries import find_entries
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.file_meter import find_baselines
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.search import Found, RecipeSearch
from edgedl.tools.jobs.search_options import (
    SPEEDUP,
    Option,
    next_pruned,
    options,
    pruned,
    timed_on,
    why_not,
)
from edgedl.tools.jobs.tried_file import TriedFile

FASTER, SLOWER = Estimate(0.5, 0.45, 0.55), Estimate(1.5, 1.4, 1.6)
STATIC = "static_w8c_a8_rounded"


def tried(
    lost: int, ratio: Estimate, precision: str = "int8", runtime: str = "ort", time: float = 0.5
) -> TriedFile:
    baseline = np.ones(1000)
    candidate = np.r_[np.zeros(lost), np.ones(1000 - lost)]
    return TriedFile("file", runtime, precision, drop_record(baseline, candidate, 1.0), ratio, time)


def named(name: str, default: str = STATIC) -> Option:
    return next(option for option in options(default) if option.name.startswith(name))


def test_only_what_is_faster_and_within_the_budget_is_taken() -> None:
    assert tried(0, FASTER).outcome == "fits"
    assert tried(0, SLOWER).outcome.startswith("within budget, but not faster")
    assert tried(100, FASTER).outcome == "over budget"
    assert "more samples needed" in tried(8, FASTER).outcome


def test_the_best_file_is_taken_then_faster_then_nearest_to_the_budget() -> None:
    files = [tried(100, SLOWER), tried(100, FASTER), tried(30, FASTER), tried(0, FASTER)]
    assert sorted(files, key=lambda t: t.rank) == files[::-1]


def test_of_files_that_fit_the_one_that_answers_first_is_taken() -> None:
    # The first saves more of its own runtime's time, the second answers sooner.
    slower, sooner = tried(0, FASTER, time=0.9), tried(0, Estimate(0.8, 0.7, 0.9), time=0.6)
    assert min(slower, sooner, key=lambda t: t.rank) is sooner


def test_without_intervals_the_least_loss_comes_closest() -> None:
    files = [
        replace(tried(0, FASTER), drop=drop_record(np.full(4, 0.9), np.full(4, 0.9 - lost), 1.0))
        for lost in (0.3, 0.2, 0.1)
    ]
    assert [file.outcome for file in files] == ["inconclusive, 16 more samples needed"] * 3
    assert sorted(files, key=lambda t: t.rank) == files[::-1]


@pytest.mark.parametrize("default", [STATIC, "dynamic_w8_afp32", "hybrid_w8c_a8", "float"])
def test_the_default_recipe_comes_first_and_no_recipe_twice(default: str) -> None:
    names = [option.name for option in options(default)]
    assert names[0] == f"default ({default})"
    assert default not in names[1:]
    assert len(set(names)) == len(names)
    assert names[-1] == "pruned_w8c_a8 (1.5 times)"


def test_integers_that_are_no_faster_than_a_file_that_fits_are_not_tried() -> None:
    subject, default = make_subject(), options(STATIC)[0]
    fits = {default: [tried(0, FASTER)]}
    for name in ("mixed_w8c_a8", "qat_w8c_a8_distilled"):
        assert why_not(named(name), subject, fits) == f"no faster than {default.name}, which fits"
        assert why_not(named(name), subject, {default: [tried(100, FASTER)]}) == ""
        # A file of floats that fits says nothing of the integers.
        assert why_not(named(name), subject, {default: [tried(0, FASTER, "float16")]}) == ""
    # Layers in float cost time: trained integers may be faster.
    mixed = {default: [tried(100, FASTER)], named("mixed_w8c_a8"): [tried(0, FASTER)]}
    assert why_not(named("qat_w8c_a8_distilled"), subject, mixed) == ""


def test_integers_that_are_slower_than_floats_are_not_tried_again() -> None:
    default = options(STATIC)[0]
    reason = why_not(named("qat_w8c_a8_distilled"), make_subject(), {default: [tried(9, SLOWER)]})
    assert reason == f"the int8 files of {default.name} are not faster than float32"


def test_a_small_network_is_not_limited_by_reading_its_weights() -> None:
    assert "weights exceed the caches" in why_not(named("weight_only_w8c"), make_subject(), {})


def test_what_trains_needs_data_to_train_on() -> None:
    subject = make_subject()
    assert "no split 'train'" in why_not(pruned(SPEEDUP), subject, {})
    splits = {**subject.task.splits, "train": subject.task.splits["calibration"]}
    able = replace(subject, task=replace(subject.task, splits=splits))
    assert why_not(pruned(SPEEDUP), able, {}) == ""


def test_pruning_is_timed_on_the_runtime_of_the_fastest_int8_file() -> None:
    def asked(files: list[TriedFile]) -> tuple[str, str]:
        option = timed_on(pruned(SPEEDUP), {options(STATIC)[0]: files})
        assert option.recipe is not None
        stage = next(s for s in option.recipe.stages if isinstance(s, STAGES["prune_channels"]))
        return stage.runtime, stage.precision

    both = [tried(0, FASTER, time=0.6), tried(0, FASTER, runtime="openvino", time=0.4)]
    assert asked(both) == ("openvino", "int8")
    assert asked([tried(0, SLOWER)]) == ("ort", "float32")


def test_more_is_pruned_after_a_file_that_fits_and_less_after_one_that_does_not() -> None:
    def following(lost: int) -> str:
        option = next_pruned(pruned(SPEEDUP), [tried(lost, FASTER)])
        return "" if option is None else option.name

    assert following(0) == "pruned_w8c_a8 (2 times)"
    assert following(100) == "pruned_w8c_a8 (1.25 times)"
    assert next_pruned(pruned(2.0), [tried(0, FASTER)]) is None
    assert next_pruned(named("dynamic_w8_afp32"), [tried(0, FASTER)]) is None


def test_a_slower_compressed_file_is_no_gain_over_the_float_files_of_a_whole_network(
    tmp_path: Path,
) -> None:
    """Float files of a network that was not cut are in every bundle, those of a cut one are not."""
    search = RecipeSearch(
        Job(make_subject(), (ORT,)), make_task(), BenchSettings((1,)), tmp_path / "x", SILENT
    )
    first, cut = options(STATIC)[0], pruned(SPEEDUP)
    made = SimpleNamespace(parent=None)
    search._made = {first: made, cut: SimpleNamespace(parent=object())}
    quick = tried(0, Estimate(1.0, 0.98, 1.02), "float32", "tflite", time=0.7)
    search._found = {first: [quick, tried(0, FASTER, time=0.9)], cut: [tried(0, FASTER, time=0.8)]}
    assert search._best(first) is first
    search._found[cut] = [tried(0, FASTER, time=0.6)]
    assert search._best(first) is cut
    # Nothing fits: what is faster and nearest to the budget.
    search._found = {first: [quick, tried(100, FASTER)], cut: [tried(30, FASTER)]}
    assert search._best(first) is cut
    search._found = {first: [quick], cut: [tried(0, SLOWER)]}
    assert search._best(first) is first


@pytest.fixture
def board(tmp_path: Path) -> Target:
    """A target of one's own, which has no float32 file."""
    target = tmp_path / "board.yaml"
    target.write_text("like: tflite\ndescription: a board\n")
    return load_target(str(target))


def search(targets: tuple[Target, ...], folder: Path, **job: float) -> tuple[RecipeSearch, Found]:
    settings = BenchSettings((1,), Protocol(arm_ms=20, loads=4), 100.0)
    made = RecipeSearch(
        Job(make_subject(), targets, **job), make_task(), settings, folder / "bundle", SILENT
    )
    return made, made.run()


@pytest.mark.slow
def test_a_target_of_ones_own_is_timed_against_its_runtimes_float32(
    board: Target, tmp_path: Path
) -> None:
    _, found = search((board,), tmp_path, search_minutes=0)
    assert [a.name for a in found.made.bundle.manifest.artifacts] == ["ort-float32", "board-int8"]
    first, *others = found.search.attempts
    assert first.artifact == "board-int8"
    assert first.drop is not None
    assert first.drop.verdict == "within budget"
    assert first.ratio_ci95 is not None
    assert 0 < first.ratio_ci95[0] <= first.ratio_ci95[1]
    assert first.seconds > 0
    # Without time nothing but the default recipe is tried, and each of the others has its reason.
    assert len(others) == len(options(STATIC)) - 1
    assert all(attempt.outcome.startswith("not tried: ") for attempt in others)
    assert any("--search-minutes" in attempt.outcome for attempt in others)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["board.yaml", "bundle"]


@pytest.mark.slow
@pytest.mark.parametrize("targets", [(ORT, TFLITE), (ORT_AVX2,)])
def test_baselines_are_float32_files_of_the_same_runtime(
    targets: tuple[Target, ...], tmp_path: Path
) -> None:
    _, found = search(targets, tmp_path, search_minutes=0)
    entries, _ = find_entries([found.made.bundle])
    for runtime, entry in find_baselines(entries).items():
        assert entry.artifact.precision == "float32"
        assert entry.artifact.backend == runtime


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_parts_of_a_test_split_are_the_whole_without_overlap(batch_size: int) -> None:
    task = ArrayTask(
        "numbers", {"test": lambda: Samples((np.arange(50.0),), np.arange(50)), "calibration": list}
    )
    parts = [
        np.concatenate([b.labels for b in part.batches("test", batch_size)])
        for part in divide(task)
    ]
    assert sorted(np.concatenate(parts)) == list(range(50))
    assert all(set(part.splits) == {"test", "calibration"} for part in divide(task))
    assert list(parts[0]) == list(range(0, 50, SHARE))


def test_a_split_named_selection_chooses_and_the_test_split_stays_whole() -> None:
    whole = make_task()
    own = ArrayTask(
        whole.name,
        {**whole.splits, "selection": lambda: Samples((np.zeros((3, 2)),), np.arange(3))},
    )
    chooses, final = divide(own)
    assert [b.labels.tolist() for b in chooses.batches("test", 5)] == [[0, 1, 2]]
    assert final is own
    assert chooses.metric == own.metric


@pytest.mark.parametrize("count", [1, 2])
def test_one_test_sample_cannot_both_choose_and_score(count: int) -> None:
    task = ArrayTask(
        "few", {"test": lambda: Samples((np.arange(count),), np.arange(count)), "calibration": list}
    )
    if count == 1:
        with pytest.raises(BadInputError, match=r"task 'few' .* at least 2 are needed"):
            divide(task)
        return
    chooses, final = divide(task)
    assert [b.labels.tolist() for b in chooses.batches("test", 5)] == [[0]]
    assert [b.labels.tolist() for b in final.batches("test", 5)] == [[1]]


def test_a_budget_on_one_test_sample_is_refused_before_anything_is_tried(
    edgedl: Run, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    tests = Path(__file__).resolve().parents[2]
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(tests)!r})\n"
        "from dataclasses import replace\n"
        "from tiny import make_subject, pictures\n"
        "def subject():\n"
        "    whole = make_subject()\n"
        "    splits = {**whole.task.splits, 'test': lambda: pictures(1, 2)}\n"
        "    return replace(whole, task=replace(whole.task, splits=splits))\n"
    )
    arguments = ("--max-drop", 1, "--target", "ort", "--out", tmp_path / "out")
    done = edgedl("compress", f"{path}:subject", *arguments)
    assert done.returncode == 2
    assert "at least 2 are needed" in done.stderr
    assert "try default" not in done.stderr
    assert not (tmp_path / "out").exists()
