"""Answers kept on disk: each asked for once, whole or computed again, and within bounds."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import noise
from torch import Tensor, nn

from edgedl.compress.distill.answer_file import AnswerFile, RememberingTeacher
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.state import ModelState
from edgedl.runtime.errors import BadInputError

RECORD = 16 + 4 * 3 + 8
BOTH = noise(8, 5), noise(8, 2, seed=1)


class Counting(nn.Module):
    """A teacher of two inputs and two outputs that counts its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += len(x)
        return x.sum(1, keepdim=True), (x[:, :2] * y)[:, :, None].expand(-1, 2, 3)


def remembering(path: Path, limit: int = 10**6) -> tuple[Counting, RememberingTeacher]:
    teacher = Counting()
    remembers = RememberingTeacher(teacher, tuple(x[:2] for x in BOTH), path, limit)
    teacher.asked = 0
    return teacher, remembers


def assert_right(remembers: RememberingTeacher, rows: list[int]) -> None:
    inputs = tuple(x[rows] for x in BOTH)
    for found, expected in zip(remembers(*inputs), Counting()(*inputs), strict=True):
        assert torch.equal(found, expected)


def test_every_sample_is_asked_for_once(tmp_path: Path) -> None:
    teacher, remembers = remembering(tmp_path / "a.bin")
    assert_right(remembers, [0, 1, 2, 3])
    assert_right(remembers, [3, 5, 0, 6])
    assert_right(remembers, [6, 6, 1])
    assert teacher.asked == 6
    later, again = remembering(tmp_path / "a.bin")
    assert_right(again, [6, 0, 5, 3])
    assert later.asked == 0


@pytest.mark.parametrize("byte", [0, 20, -1])
def test_a_damaged_answer_is_computed_again(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "a.bin"
    assert_right(remembering(path)[1], [0, 1, 2])
    content = bytearray(path.read_bytes())
    size = len(content) // 3
    content[size + byte] ^= 1
    path.write_bytes(content)
    teacher, remembers = remembering(path)
    assert_right(remembers, [0, 1, 2])
    assert teacher.asked == 1
    assert_right(remembering(path)[1], [0, 1, 2])


def test_half_a_record_and_foreign_bytes_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    assert_right(remembering(path)[1], [0, 1, 2])
    path.write_bytes(path.read_bytes()[:-5])
    teacher, remembers = remembering(path)
    assert_right(remembers, [0, 1, 2])
    assert teacher.asked == 1
    path.write_bytes(b"something else entirely" * 40)
    assert_right(remembering(path)[1], [0, 1, 2])


def test_a_file_cut_while_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    _, remembers = remembering(path)
    assert_right(remembers, [0, 1, 2])
    path.write_bytes(b"")
    assert_right(remembers, [0, 1, 2])
    assert_right(remembers, [2, 1, 0])


def test_records_that_another_process_wrote_over(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    _, remembers = remembering(path)
    assert_right(remembers, [0, 1, 2])
    content = path.read_bytes()
    size = len(content) // 3
    path.write_bytes(content[size:] + content[:size])
    assert_right(remembers, [0, 1, 2])


def test_the_bound_holds_and_the_rest_is_computed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    remembering(path)[1](*(x[:1] for x in BOTH))
    record = path.stat().st_size
    teacher, remembers = remembering(path, 3 * record + 5)
    for _ in range(2):
        assert_right(remembers, list(range(8)))
    assert path.stat().st_size == 3 * record
    assert teacher.asked == 7 + 5


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.dictionaries(st.integers(0, 9), st.integers(0, 5), max_size=4), max_size=6))
def test_a_file_is_a_dictionary_with_a_bound(tmp_path: Path, steps: list[dict[int, int]]) -> None:
    path = tmp_path / "rows.bin"
    path.unlink(missing_ok=True)
    kept: dict[bytes, int] = {}
    for step in steps:
        file = AnswerFile(path, 3, 4 * RECORD)
        rows = {bytes([key] * 16): value for key, value in step.items()}
        file.write({key: np.full(3, value, np.float32) for key, value in rows.items()})
        for key, value in rows.items():
            if key in kept or len(kept) < 4:
                kept[key] = value
        found = AnswerFile(path, 3, 4 * RECORD).read(bytes([key] * 16) for key in range(10))
        assert {key: int(row[0]) for key, row in found.items()} == kept
        assert path.stat().st_size == RECORD * len(kept)


@pytest.fixture(scope="module")
def pruned(float_state: ModelState) -> ModelState:
    return PruneChannels(0.5, multiple=1).apply(float_state)


@pytest.mark.parametrize("features", [(), ("pointwise",)])
def test_fine_tuning_with_kept_answers(
    pruned: ModelState, tmp_path: Path, features: tuple[str, ...]
) -> None:
    stage = FineTune(
        2,
        samples=64,
        batch_size=32,
        learning_rate=0.02,
        features=features,
        feature_loss="projection" if features else "none",
    )
    keeping = msgspec.structs.replace(stage, answer_cache_bytes=10**6)
    asked = stage.apply(replace(pruned, workspace=tmp_path))
    kept = keeping.apply(replace(pruned, workspace=tmp_path))
    (answers,) = tmp_path.glob("answers-*.bin")
    values = 4 + (8 * 12 * 12 if features else 0)
    assert answers.stat().st_size == 64 * (16 + 4 * values + 8)
    x = pruned.subject.example_inputs()
    torch.testing.assert_close(kept.graph(*x), asked.graph(*x), rtol=1e-3, atol=1e-4)
    # Without the checkpoint all is trained again, from the same answers to the bit.
    before = answers.read_bytes()
    for checkpoint in tmp_path.glob("*.pt"):
        checkpoint.unlink()
    again = keeping.apply(replace(pruned, workspace=tmp_path))
    assert torch.equal(again.graph(*x), kept.graph(*x))
    assert answers.read_bytes() == before


def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def test_answers_to_the_views_of_augmented_samples_are_kept(
    pruned: ModelState, tmp_path: Path
) -> None:
    start = replace(pruned, subject=replace(pruned.subject, augment=noisy), workspace=tmp_path)
    FineTune(6, samples=64, batch_size=32, views=2, answer_cache_bytes=10**6).apply(start)
    (answers,) = tmp_path.glob("answers-*.bin")
    assert answers.stat().st_size == 2 * 64 * (16 + 4 * 4 + 8)


def test_answers_to_samples_that_never_come_again_cannot_be_kept(float_state: ModelState) -> None:
    subject = replace(float_state.subject, augment=noisy)
    with pytest.raises(BadInputError, match="set views to the number of ways"):
        FineTune(1, answer_cache_bytes=1).apply(replace(float_state, subject=subject))
