"""Checkpoints of runs with all settings: cut off after any epoch, older files, a full disk."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_blobs import SETTINGS, Blobs, assert_same_weights, make_module

from edgedl.compress.training import EpochRecord, train
from edgedl.runtime.errors import BadInputError

EVERYTHING = replace(
    SETTINGS, epochs=8, accumulate=5, ema_decay=0.6, patience=2, max_learning_rate=1.0, seed=1
)


def falling_score(module: nn.Module) -> float:
    """Return how well the module does on blobs, rounded so that it stops rising."""
    blobs = Blobs()
    with torch.no_grad():
        return round(-float(F.cross_entropy(module(blobs.inputs), blobs.labels)), 2)


def without_time(records: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in records]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("scored", [True, False])
def test_a_run_cut_off_after_every_epoch_ends_with_the_same_bits(
    scored: bool, tmp_path: Path
) -> None:
    score = falling_score if scored else None
    whole, path = make_module(norm=True), tmp_path / "c.pt"
    records = train(whole, Blobs(), F.cross_entropy, EVERYTHING, score=score)
    assert 3 < len(records) < 8, "the run was to stop early"

    def stop(epoch: int, step: int, loss: float) -> None:
        # In the middle of the epoch after the checkpoint, and of a step.
        if epoch > 1 and step == 7 and not path.with_name(f"stopped{epoch}").exists():
            path.with_name(f"stopped{epoch}").touch()
            raise StoppedError

    for _ in records[1:]:
        with pytest.raises(StoppedError):
            train(make_module(norm=True), Blobs(), F.cross_entropy, EVERYTHING, path, stop, score)
    resumed, again = make_module(norm=True), make_module(norm=True)
    found = train(resumed, Blobs(), F.cross_entropy, EVERYTHING, path, stop, score)
    assert without_time(found) == without_time(records)
    assert_same_weights(resumed, whole)

    def refuse(epoch: int, step: int, loss: float) -> None:
        raise StoppedError

    # A run that has stopped early is over: nothing more is trained.
    train(again, Blobs(), F.cross_entropy, EVERYTHING, path, refuse, score)
    assert_same_weights(again, whole)


def killed_in_epoch(number: int, path: Path) -> None:
    def hook(epoch: int, step: int, loss: float) -> None:
        if (epoch, step) == (number, 5):
            os.kill(os.getpid(), signal.SIGKILL)

    train(make_module(norm=True), Blobs(), F.cross_entropy, EVERYTHING, path, hook)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_killed_process_leaves_what_another_ends_with_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    child = multiprocessing.get_context("fork").Process(target=killed_in_epoch, args=(3, path))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(torch.load(path, weights_only=True)["records"]) == 2
    whole, resumed = make_module(norm=True), make_module(norm=True)
    records = train(whole, Blobs(), F.cross_entropy, EVERYTHING)
    found = train(resumed, Blobs(), F.cross_entropy, EVERYTHING, path)
    assert without_time(found) == without_time(records)
    assert_same_weights(resumed, whole)


def test_a_checkpoint_with_scores_is_not_gone_on_with_without(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    train(make_module(), Blobs(), F.cross_entropy, SETTINGS, path, score=lambda module: 1.0)
    with pytest.raises(BadInputError, match="written with a score"):
        train(make_module(), Blobs(), F.cross_entropy, SETTINGS, path)


def test_a_checkpoint_from_before_these_settings_is_gone_on_with(tmp_path: Path) -> None:
    path, whole, resumed = tmp_path / "c.pt", make_module(), make_module()
    train(whole, Blobs(), F.cross_entropy, SETTINGS, path)
    state = torch.load(path, weights_only=True)
    for name in ("accumulate", "ema_decay", "patience"):
        del state["settings"][name]
    del state["average"], state["best"]
    for record in state["records"]:
        del record["score"]
    torch.save(state, path)
    train(resumed, Blobs(), F.cross_entropy, SETTINGS, path)
    assert_same_weights(resumed, whole)
    averaging = replace(SETTINGS, ema_decay=0.9)
    with pytest.raises(BadInputError, match="other settings"):
        train(make_module(), Blobs(), F.cross_entropy, averaging, path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file-size limit")
def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_whole(tmp_path: Path) -> None:
    import resource

    path, whole, resumed = tmp_path / "c.pt", make_module(), make_module()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full_in_epoch(number: int) -> Callable[[int, int, float], None]:
        def hook(epoch: int, step: int, loss: float) -> None:
            if (epoch, step) == (number, 12):
                # Python ignores the signal, so that a write beyond the limit is an OSError.
                resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))

        return hook

    for epoch, kept in ((1, "there is none yet"), (3, "that of epoch 2 is whole")):
        hook = full_in_epoch(epoch)
        try:
            with pytest.raises(BadInputError) as caught:
                train(make_module(), Blobs(), F.cross_entropy, SETTINGS, path, hook)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(caught.value).startswith(
            f"{path}: the checkpoint of epoch {epoch} could not be written, {kept} "
            "(File too large): make room on the disk"
        )
        assert [p.name for p in tmp_path.iterdir()] == (["c.pt"] if epoch > 1 else [])
    assert [r["epoch"] for r in torch.load(path, weights_only=True)["records"]] == [1, 2]
    train(whole, Blobs(), F.cross_entropy, SETTINGS)
    train(resumed, Blobs(), F.cross_entropy, SETTINGS, path)
    assert_same_weights(resumed, whole)


def test_a_checkpoint_of_other_data_is_not_gone_on_with(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(make_module(), Blobs(32), F.cross_entropy, SETTINGS, checkpoint)
    with pytest.raises(BadInputError, match="3 batches per epoch, there are 12 now"):
        train(make_module(), Blobs(8), F.cross_entropy, SETTINGS, checkpoint)
