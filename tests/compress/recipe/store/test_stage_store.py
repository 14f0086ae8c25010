"""Results of stages: found again to the bit, only where everything they depend on is the same."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from listening import notes_to
from safetensors.torch import load
from tiny import make_subject
from torch import nn

from edgedl.compress.cluster.cluster_weights import ClusterWeights
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.correct_bias import CorrectBias
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.corrections.learn_rounding import LearnRounding
from edgedl.compress.quantize.corrections.match_statistics import MatchStatistics
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.qat.train_quantized import TrainQuantized
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.quantize.weight_only import QuantizeWeights
from edgedl.compress.recipe.apply_recipe import StageRunner
from edgedl.compress.recipe.store.ingredients import Provenance
from edgedl.compress.recipe.store.store import StageStore
from edgedl.compress.sparsify.sparsify import Sparsify
from edgedl.compress.stage import Stage
from edgedl.compress.state import ModelState, begin

PRUNE = PruneChannels(ratio=0.5, multiple=2)
TUNE = FineTune(epochs=2, samples=32, batch_size=16)
STATIC = QuantizeStatic(samples=16, observer="minmax")
TRAIN = TrainQuantized(epochs=1, samples=32, batch_size=16)


def provenance(state: ModelState) -> Provenance:
    return Provenance(state, {"torch": "1"})


class Heard(list[str]):
    """What is said, but of epochs and of what they are trained on."""

    def __call__(self, text: str) -> None:
        if ", epoch " not in text and "calibration data" not in text:
            self.append(text)


def run(stages: tuple[Stage, ...], state: ModelState, folder: Path, heard: Heard) -> ModelState:
    known, store = provenance(state), StageStore(folder)
    state = replace(state, progress=notes_to(heard))
    for stage in stages:
        state = store.apply(stage, state, known.ingredients(stage, state))
    return state


def same(found: ModelState, expected: ModelState) -> None:
    assert found.history == expected.history
    pairs = [(found.graph, expected.graph)]
    if expected.quantized is not None:
        assert found.quantized is not None
        pairs.append((found.quantized.graph, expected.quantized.graph))
        assert found.quantized.encodings.to_json() == expected.quantized.encodings.to_json()
    for a, b in pairs:
        assert str(a.graph) == str(b.graph)
        first, second = a.state_dict(), b.state_dict()
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name
    x = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found.subject.module(x), expected.subject.module(x))
    assert (found.parent is None) == (expected.parent is None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [
        (PRUNE, TUNE, STATIC, TRAIN),
        (Factorize(energy=0.5, multiple=1), Sparsify(), STATIC),
        (STATIC, RoundWeights(samples=16), CorrectBias(samples=16), TRAIN),
        (STATIC, LearnRounding(samples=16, iterations=10), MatchStatistics(samples=16)),
    ],
)
def test_a_second_run_finds_every_stage_to_the_bit(
    stages: tuple[Stage, ...], tmp_path: Path
) -> None:
    expected = begin(make_subject())
    for stage in stages:
        expected = stage.apply(expected)
    first, second = Heard(), Heard()
    same(run(stages, begin(make_subject()), tmp_path, first), expected)
    same(run(stages, begin(make_subject()), tmp_path, second), expected)
    assert first == []
    assert [line.partition(": reused")[0] for line in second] == [
        entry.stage for entry in expected.history
    ]


class Uncertain(nn.Module):
    """Draws from torch's generator while it trains; its two last layers share a weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Linear(3 * 12 * 12, 8)
        self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8)
        self.third.weight = self.second.weight
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.first(x.flatten(1)).relu(), 0.3, self.training)
        return self.last(self.third(self.second(x).relu()).relu())


def test_a_result_that_is_missing_is_made_as_it_was(tmp_path: Path) -> None:
    subject = replace(make_subject(), module=Uncertain().eval())
    again = msgspec.structs.replace(TUNE, seed=1)
    stages = (TUNE, again, STATIC)

    def go() -> tuple[ModelState, list[str]]:
        heard = Heard()
        state = replace(begin(subject), progress=notes_to(heard))
        known = provenance(state)
        return StageRunner(StageStore(tmp_path), known).run(stages, state), heard

    first, _ = go()
    (path,) = [
        tmp_path / f"{kept.key}.safetensors"
        for kept in StageStore(tmp_path).contents()
        if kept.record is not None and '"seed":1' in kept.record.ingredients.settings
    ]
    content = path.read_bytes()
    path.unlink()
    second, heard = go()
    same(second, first)
    assert [line.partition(":")[0] for line in heard] == ["fine_tune", "quantize_static"]
    assert load(path.read_bytes()).keys() == load(content).keys()


@pytest.mark.parametrize("stage", [Equalize(), ClusterWeights(), QuantizeWeights(8)])
def test_what_a_file_cannot_give_again_is_applied_again(stage: Stage, tmp_path: Path) -> None:
    heard = Heard()
    first, second = (run((stage,), begin(make_subject()), tmp_path, heard) for _ in range(2))
    same(second, first)
    assert heard == []
    assert StageStore(tmp_path).contents() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b[:-1] + b"?",
        lambda b: b"",
        lambda b: b.replace(b"macs_after", b"macs_aftor", 1),
    ],
)
def test_a_damaged_result_is_made_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    heard = Heard()
    expected = run((PRUNE,), begin(make_subject()), tmp_path, heard)
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    same(run((PRUNE,), begin(make_subject()), tmp_path, heard), expected)
    assert len(heard) == 1
    assert "is damaged" in heard[0]
    (kept,) = StageStore(tmp_path).contents()
    assert (kept.key, kept.damaged) == (path.stem, False)


def train_for_long(folder: Path) -> None:
    run(
        (PRUNE, msgspec.structs.replace(TUNE, epochs=10_000)),
        begin(make_subject()),
        folder,
        Heard(),
    )


def prune_slowly(folder: Path) -> None:
    class Slow(Stage, frozen=True):
        def apply(self, state: ModelState) -> ModelState:
            time.sleep(1.0)
            return PRUNE.apply(state)

    state = begin(make_subject())
    StageStore(folder).apply(Slow(), state, provenance(state).ingredients(PRUNE, state))


def in_another_process(function: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a function of this file."""
    here = Path(__file__)
    paths = [str(folder) for folder in (here.parent, *here.parents[2:4])]
    code = (
        f"import sys; sys.path[:0] = {paths}; from pathlib import Path\n"
        f"import test_stage_store; test_stage_store.{function}(Path({str(folder)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def wait_for(folder: Path, pattern: str) -> Path:
    deadline = time.monotonic() + 120
    while not (found := _matching(folder, pattern)):
        assert time.monotonic() < deadline, f"there is no {pattern}"
        time.sleep(0.02)
    return found[0]


def _matching(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except FileNotFoundError:
        # The folder of a stage that ended while its files were listed.
        return []


@pytest.mark.slow
def test_kill_leaves_the_epochs_that_are_done_and_the_stages_before(tmp_path: Path) -> None:
    process = in_another_process("train_for_long", tmp_path)
    checkpoint = wait_for(tmp_path, "*.unfinished/*.pt")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(torch.load(checkpoint, weights_only=True)["records"]) >= 1
    heard = Heard()
    run((PRUNE,), begin(make_subject()), tmp_path, heard)
    assert heard[0].startswith("prune_channels: reused")
    records = [kept.record for kept in StageStore(tmp_path).contents()]
    assert {r.entry.stage if r else None for r in records} == {"prune_channels", None}


@pytest.mark.slow
def test_of_two_runs_at_one_stage_the_second_waits(tmp_path: Path) -> None:
    state, heard = begin(make_subject()), Heard()
    process = in_another_process("prune_slowly", tmp_path)
    wait_for(tmp_path, "*.unfinished")
    store = StageStore(tmp_path)
    ingredients = provenance(state).ingredients(PRUNE, state)
    assert store.in_use(ingredients.key())
    store.apply(PRUNE, replace(state, progress=notes_to(heard)), ingredients)
    assert not store.in_use(ingredients.key())
    assert process.wait() == 0
    assert heard[0] == "waiting for another run that computes prune_channels"
    assert heard[1].startswith("prune_channels: reused")


def test_a_stage_that_fails_leaves_the_others(tmp_path: Path) -> None:
    run((PRUNE,), begin(make_subject()), tmp_path, Heard())

    class Broken(Stage, frozen=True):
        def apply(self, state: ModelState) -> ModelState:
            assert state.workspace is not None
            raise ZeroDivisionError

    state = begin(make_subject())
    ingredients = provenance(state).ingredients(TUNE, state)
    with pytest.raises(ZeroDivisionError):
        StageStore(tmp_path).apply(Broken(), state, ingredients)
    assert len(StageStore(tmp_path).contents()) == 1


def test_removing(tmp_path: Path) -> None:
    run((PRUNE, STATIC), begin(make_subject()), tmp_path, Heard())
    store = StageStore(tmp_path)
    first, second = store.contents()
    assert first.record is not None
    assert first.record.subject == "tiny"
    assert first.size_bytes == (tmp_path / f"{first.key}.safetensors").stat().st_size
    assert store.remove(first)
    assert [kept.key for kept in store.contents()] == [second.key]


def test_nothing_is_kept_of_a_subject_that_cannot_be_described(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec("def augment(x, generator): return x", scope)
    start, heard = begin(make_subject()), Heard()
    start = replace(start, subject=replace(start.subject, augment=scope["augment"]))
    runner = StageRunner(StageStore(tmp_path), provenance(start))
    runner.run((PRUNE,), replace(start, progress=notes_to(heard.append)))
    assert "results are not cached" in heard[0]
    assert "builtins.function" in heard[0]
    assert list(tmp_path.iterdir()) == []
