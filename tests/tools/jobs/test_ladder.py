"""What a rung of the ladder is worth, and which samples choose."""

from pathlib import Path

import numpy as np
import pytest
from command import Run
from tiny import make_subject, make_task

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.score import score_module
from edgedl.compress.subject.selection import SHARE, divide
from edgedl.compress.targets.named import ORT, ORT_AVX2, TFLITE
from edgedl.compress.targets.target import Target, load_target
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.entries import find_entries
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.ladder import (
    AT_MOST_AS_FAST_AS,
    RUNGS,
    _as_fast,
    _baselines,
    _make_floats,
    _Tried,
    _try,
)

FASTER, SLOWER = Estimate(0.5, 0.45, 0.55), Estimate(1.5, 1.4, 1.6)


def tried(lost: int, ratio: Estimate, budget: float = 1.0) -> _Tried:
    baseline = np.ones(1000)
    candidate = np.r_[np.zeros(lost), np.ones(1000 - lost)]
    return _Tried("file", drop_record(baseline, candidate, budget), ratio, ratio.value)


def test_only_what_is_faster_and_within_the_budget_is_taken() -> None:
    assert tried(0, FASTER).outcome == "fits"
    assert tried(0, SLOWER).outcome.startswith("within budget, but not faster")
    assert tried(100, FASTER).outcome == "over budget"
    assert "more samples needed" in tried(8, FASTER).outcome


def test_the_best_file_is_taken_then_faster_then_nearest_to_the_budget() -> None:
    files = [tried(100, SLOWER), tried(100, FASTER), tried(30, FASTER), tried(0, FASTER)]
    assert sorted(files, key=lambda t: t.rank) == files[::-1]


def test_without_intervals_the_least_loss_comes_closest() -> None:
    losses = (0.3, 0.2, 0.1)
    files = [
        _Tried("file", drop_record(np.full(4, 0.9), np.full(4, 0.9 - lost), 1.0), FASTER, 0.5)
        for lost in losses
    ]
    assert [file.outcome for file in files] == ["inconclusive, 16 more samples needed"] * 3
    assert sorted(files, key=lambda t: t.rank) == files[::-1]


@pytest.fixture
def board(tmp_path: Path) -> Target:
    """A target of one's own, which has no float32 file."""
    target = tmp_path / "board.yaml"
    target.write_text("like: tflite\ndescription: a board\n")
    return load_target(str(target))


@pytest.mark.slow
def test_files_of_a_target_of_ones_own_are_timed_against_its_runtimes_float32(
    board: Target, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    made = compress(make_subject(), load_recipe("static_w8c_a8"), (board,), folder)
    entries, _ = find_entries([made.bundle])
    assert [e.name for e in entries] == ["ort-float32", "board-int8"]
    floats = _make_floats(make_subject(), (board,), folder)
    assert floats is not None
    against = _baselines([*find_entries([floats])[0], *entries])
    assert {k: e.name for k, e in against.items()} == {
        "ort": "ort-float32",
        "tflite": "tflite-float32",
    }
    # Where the runtime takes no float32 file, that of ONNX Runtime is the best there is.
    assert {e.name for e in _baselines(entries).values()} == {"ort-float32"}
    settings = BenchSettings((1,), Protocol(), 100.0)
    reference = score_module(make_subject().module, make_task())
    for bundle in (floats, None):
        (file,) = _try(made, "int8", make_task(), reference, settings, bundle)
        assert file.name == "board-int8"
        assert file.drop.verdict == "within budget"
        assert 0 < file.ratio.lo <= file.ratio.value <= file.ratio.hi


@pytest.mark.slow
def test_only_runtimes_without_a_float32_file_get_one(board: Target, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    for targets in ((ORT, TFLITE), (ORT_AVX2,), (board, TFLITE)):
        assert _make_floats(make_subject(), targets, folder) is None
    made = _make_floats(make_subject(), (board,), folder)
    assert made is not None
    assert [a.name for a in made.manifest.artifacts] == ["ort-float32", "tflite-float32"]
    assert made.folder != folder


def test_recipes_as_fast_as_others_come_after_them() -> None:
    names = [name for name, _ in RUNGS]
    assert all(names.index(a) > names.index(b) for a, b in AT_MOST_AS_FAST_AS.items())


def test_what_may_be_faster_than_a_file_that_fits_is_tried() -> None:
    fits, misses = [tried(0, FASTER)], [tried(100, FASTER)]
    assert _as_fast("static_w8c_a8", {"float": fits, "dynamic_w8_afp32": fits}) == ""
    found = {"static_w8c_a8": misses, "static_w8c_a8_rounded": fits}
    assert _as_fast("mixed_w8c_a8", found) == "static_w8c_a8_rounded"
    assert _as_fast("qat_w8c_a8_distilled", found) == "static_w8c_a8_rounded"
    # Layers in float cost time: trained integers may be faster.
    assert _as_fast("qat_w8c_a8_distilled", {"mixed_w8c_a8": fits}) == ""


def test_of_files_that_fit_the_one_that_answers_first_is_taken() -> None:
    drop = tried(0, FASTER).drop
    # The first saves more of its own runtime's time, the second answers sooner.
    slower, sooner = _Tried("a", drop, FASTER, 0.9), _Tried("b", drop, Estimate(0.8, 0.7, 0.9), 0.6)
    assert min(slower, sooner, key=lambda t: t.rank) is sooner


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


def test_a_ladder_on_one_test_sample_is_refused_before_it_is_walked(
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
    assert "try float" not in done.stderr
    assert not (tmp_path / "out").exists()
