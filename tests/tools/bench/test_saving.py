"""Why fewer multiply-accumulates are not faster: the reasons, and a planted network."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from measured import candidate
from msgspec.structs import replace
from torch import nn

from edgedl.compress.latency.timing import load_arm, time_arms
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.runtime.bundle.manifest import HistoryEntry, Setting
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.measure.measure import Protocol
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.task.task import ArrayTask, Samples
from edgedl.tools.bench.recommend import recommend
from edgedl.tools.bench.saving import Saving, explain_saving, saving_of

AVX512 = ("avx2", "avx512f")
SMALL = 50_000
# Half of the work, of which blocks of 16 leave nothing.
PLANTED = Saving(2.0, 1.0, 16, (13, 27, 32), 10**6)


def test_a_saving_that_shows_needs_no_reason() -> None:
    for ratio in (0.4, 0.5, 0.6):
        assert explain_saving(PLANTED, ratio, SMALL) == ""


def test_blocks_that_are_not_filled_are_named() -> None:
    text = explain_saving(PLANTED, 1.0, SMALL)
    assert text.startswith("it computes 0.50 of its parent's multiply-accumulates per second: ")
    assert "blocks of 16 channels, widths of 13, 27 do not fill" in text
    assert "in whole blocks there are only 1.00x fewer" in text


@pytest.mark.parametrize(
    "saving",
    [
        # Every width fills its blocks.
        Saving(2.0, 1.0, 16, (16, 32), 10**6),
        # Blocks take little off the promise.
        Saving(2.0, 1.9, 16, (13, 27), 10**6),
    ],
)
def test_blocks_that_explain_nothing_are_not_blamed(saving: Saving) -> None:
    text = explain_saving(saving, 1.0, SMALL)
    assert "blocks" not in text
    assert text.endswith("per second: its layers are too small to use the kernels fully")


def test_what_no_width_takes_away_is_named_where_it_was_measured() -> None:
    aligned = Saving(4.0, 4.0, 16, (16,), 10**6, fixed=0.4)
    assert "its narrowest form takes 0.40 of its parent's time" in explain_saving(
        aligned, 0.6, SMALL
    )
    assert "narrowest" not in explain_saving(aligned, 0.9, SMALL)


def test_weights_that_are_read_for_little_work_are_named() -> None:
    dense = Saving(2.0, 2.0, 16, (512,), 10**6)
    assert "reads 4.0 bytes of weights for each" in explain_saving(dense, 0.9, 4 * 10**6)
    # Few bytes are in a cache; much work hides many.
    assert "bytes" not in explain_saving(dense, 0.9, SMALL)
    assert "bytes" not in explain_saving(Saving(2.0, 2.0, 16, (512,), 10**8), 0.9, 4 * 10**6)


def test_several_stages_are_counted_together() -> None:
    channels = {
        "macs_before": 800,
        "macs_after": 400,
        "macs_in_blocks_before": 1000,
        "macs_in_blocks_after": 800,
        "channel_multiple": 8,
        "widths": ("a.weight:0=13", "b.weight:0=24"),
        "latency_ratio_narrowest": 0.25,
    }
    blocks = {"macs_before": 400, "macs_after": 100}
    entries = (("prune_channels", channels), ("fine_tune", {}), ("prune_blocks", blocks))
    history = [HistoryEntry(name, settings) for name, settings in entries]  # type: ignore[arg-type]
    # What the first stage timed is not of the network that the second one began with.
    assert saving_of(history, "ort", AVX512) == Saving(8.0, 5.0, 8, (13, 24), 100)
    assert saving_of(history[1:2], "ort", AVX512) is None


@pytest.mark.parametrize(
    ("isa", "multiple", "in_blocks"),
    [(AVX512, 16, 1.25), (("avx2",), 16, 2.0), (("avx2",), 8, 1.25), (("asimddp",), 16, 1.25)],
)
def test_blocks_larger_than_this_processors_explain_nothing(
    isa: tuple[str, ...], multiple: int, in_blocks: float
) -> None:
    settings: dict[str, Setting] = {
        "macs_before": 4,
        "macs_after": 2,
        "macs_in_blocks_before": 5,
        "macs_in_blocks_after": 4,
        "channel_multiple": multiple,
        "widths": ("a.weight:0=9",),
    }
    found = saving_of([HistoryEntry("prune_channels", settings)], "ort", isa)
    assert found is not None
    assert found.in_blocks == in_blocks


@pytest.mark.parametrize(
    ("runtime", "precision", "fixed"),
    [("ort", "float32", 0.25), ("ort", "int8", None), ("tflite", "float32", None)],
)
def test_only_the_same_kind_of_file_tells_what_no_width_takes_away(
    runtime: str, precision: str, fixed: float | None
) -> None:
    settings: dict[str, Setting] = {
        "macs_before": 4,
        "macs_after": 2,
        "runtime": runtime,
        "precision": precision,
        "latency_ratio_narrowest": 0.25,
    }
    found = saving_of([HistoryEntry("factorize", settings)], "ort", AVX512)
    assert found is not None
    assert found.fixed == fixed


def planted() -> ModelState:
    """Six convolutions of 16 and 32 channels."""
    torch.manual_seed(0)
    widths = (3, 16, 32, 16, 32, 16, 32)
    pairs = pairwise(widths)
    layers = [m for a, b in pairs for m in (nn.Conv2d(a, b, 3, 1, 1), nn.ReLU())]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))

    def samples() -> Samples:
        pictures = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
        return Samples((pictures,), np.zeros(8, np.int64))

    task = ArrayTask(
        name="noise",
        splits={"calibration": samples, "test": samples},
        metric="output",
        score_samples=lambda outputs, labels: np.zeros(len(labels)),
    )
    subject = Subject("planted", nn.Sequential(*layers, pool).eval(), task)
    return begin(subject)


@pytest.mark.slow
@pytest.mark.skipif("avx512f" not in run_context().isa, reason="its blocks are of 8 channels")
def test_half_the_work_in_odd_widths_is_hardly_faster_and_is_explained() -> None:
    parent = planted()
    pruned = PruneChannels(0.3, multiple=1).apply(parent)
    saving = saving_of(pruned.history, "ort", run_context().isa)
    assert saving is not None
    assert set(saving.widths) == {11, 22}
    assert saving.fewer > 2
    arms = {n: load_arm(s, ORT, FLOAT32) for n, s in (("parent", parent), ("odd", pruned))}
    found = time_arms(arms, Protocol()).ratio("parent", "odd")
    # Half the arithmetic in whole blocks would take half the time.
    assert found.lo > 0.85
    lost = explain_saving(saving, found.value, SMALL)
    assert "blocks of 16 channels, widths of 11, 22 do not fill" in lost
    whole = candidate("parent:ort-float32", (1.0, 1.0))
    odd = replace(
        candidate("ort-float32", (0.99, 1.01)),
        theoretical_speedup=saving.fewer,
        saving_lost=lost,
    )
    advice = recommend([whole, odd], None)
    assert advice.name == whole.name
    assert advice.notes[-1].endswith(f"its parent on the same runtime; {lost}")
