"""Files of several recipes that are nearly as fast are timed beside each other."""

from pathlib import Path

import numpy as np
import pytest
from tiny import make_subject, make_task

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.targets.named import ORT
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.progress import SILENT
from edgedl.tools.bench.drop import drop_record
from edgedl.tools.bench.settings import BenchSettings
from edgedl.tools.jobs.file_meter import FileMeter
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.search import RecipeSearch
from edgedl.tools.jobs.search_options import SPEEDUP, options, pruned
from edgedl.tools.jobs.tried_file import TriedFile

STATIC = "static_w8c_a8_rounded"
NO_DROP = drop_record(np.ones(1000), np.ones(1000), 1.0)


@pytest.mark.slow
def test_files_of_several_recipes_are_timed_again_in_one_run(tmp_path: Path) -> None:
    subject, task = make_subject(), make_task()
    settings = BenchSettings((1,), Protocol(arm_ms=20, loads=4), 100.0)
    job = Job(subject, (ORT,))
    search = RecipeSearch(job, task, settings, tmp_path / "bundle", SILENT)
    whole, cut = options(STATIC)[0], pruned(SPEEDUP)
    for option in (whole, cut):
        place = tmp_path / str(len(search._made))
        place.mkdir()
        search._made[option] = compress(subject, load_recipe("float"), (ORT,), place)
    bundle = search._made[whole].bundle
    search._meter = FileMeter(job, task, settings, bundle, tmp_path / "float32")

    def file(name: str, time: float) -> TriedFile:
        return TriedFile(name, "ort", "int8", NO_DROP, Estimate(0.5, 0.45, 0.55), time)

    float32, far = file("ort-float32", 0.7), file("ort-float16", 0.9)
    search._found = {whole: [float32, far], cut: [float32]}
    search._time_rivals(whole)
    assert search._found[whole][1] is far
    # Both are the very file that is the baseline.
    for option in (whole, cut):
        assert search._found[option][0].time == pytest.approx(1.0, abs=0.25)
    # The files of one recipe were in one run already.
    search._found = {whole: [float32, float32], cut: [far]}
    search._time_rivals(whole)
    assert search._found == {whole: [float32, float32], cut: [far]}
