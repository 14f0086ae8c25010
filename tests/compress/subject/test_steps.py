"""Steps of sequences: which, with which state, and a subject with a state down to its files."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.score import score_module
from edgedl.compress.subject.steps import OF_A_SEQUENCE, StepTask, by_steps, over_sequences
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import load_target
from edgedl.models.gpt import Gpt
from edgedl.runtime.bundle.state import State
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.generate import Generation, Sampling
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.scores import BITS, bits_per_character
from edgedl.runtime.task.task import ArrayTask, Samples

LENGTH = 16
ALPHABET = "\ufffd abcdefghi"


class Sum(nn.Module):
    """Returns the sum of all that it was given."""

    def forward(self, x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        return x + total.unsqueeze(1), total + x.squeeze(1)


def sums(count: int = 20, length: int = LENGTH) -> ArrayTask:
    values = np.random.default_rng(0).normal(size=(count, length, 3)).astype(np.float32)
    samples = Samples((values,), np.cumsum(values, 1))
    return ArrayTask(
        "sums",
        {"calibration": lambda: samples, "test": lambda: samples},
        "exact",
        lambda y, labels: np.asarray(
            [np.allclose(a, b, atol=1e-4) for a, b in zip(y[0], labels, strict=True)], np.float64
        ),
    )


STATES = (State("total", "add_1", (3,)),)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1000])
def test_steps_have_the_state_of_their_place(batch_size: int) -> None:
    batches = list(StepTask(sums(), Sum(), STATES).batches("test", batch_size))
    assert all(len(b.labels) == batch_size for b in batches[:-1])
    x, before = (np.concatenate([b.inputs[i] for b in batches]) for i in (0, 1))
    labels = np.concatenate([b.labels for b in batches])
    assert (len(x), x.shape[1:], before.shape[1:]) == (20 * OF_A_SEQUENCE, (1, 3), (3,))
    np.testing.assert_allclose(before[:, None] + x, labels, atol=1e-4)
    assert len(np.unique(labels[:, 0, 0])) == len(labels)


def test_sequences_shorter_than_the_steps_taken_of_one() -> None:
    batches = list(StepTask(sums(length=3), Sum(), STATES).batches("test", 100))
    assert sum(len(b.labels) for b in batches) == 20 * 3


def test_a_module_over_sequences_begins_with_zeros() -> None:
    subject = Subject("sum", Sum(), sums(), states=STATES)
    assert score_module(over_sequences(subject), subject.task).mean() == 1.0
    plain = Subject("sum", Sum(), sums())
    assert over_sequences(plain) is plain.module
    assert by_steps(plain) is plain


def writer() -> Subject:
    """Return a small GPT, and texts in which each letter follows the one before it."""
    torch.manual_seed(0)
    gpt = Gpt(len(ALPHABET), width=16, layers=2, heads=2, feed_forward=32, context=LENGTH).eval()
    starts = np.arange(24)[:, None]
    text = 2 + (starts + np.arange(LENGTH + 1)) % 9
    samples = Samples((text[:, :-1],), text[:, 1:])
    task = ArrayTask(
        "letters",
        {"calibration": lambda: samples, "test": lambda: samples},
        BITS,
        bits_per_character,
        preprocessing=CharacterPreprocessing(ALPHABET, LENGTH),
    )
    return Subject("writer", gpt, task, states=gpt.state())


def by_hand(gpt: nn.Module, text: str, count: int) -> str:
    """Take the most probable letter each time, with the network for whole sequences."""
    for _ in range(count):
        tokens = torch.tensor([[ALPHABET.index(c) for c in text]])
        with torch.no_grad():
            text += ALPHABET[int(gpt(tokens)[0, -1].argmax())]
    return text


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort", "openvino", "tflite"])
def test_every_runtime_writes_what_the_network_does(target: str, tmp_path) -> None:
    subject = writer()
    bundle = compress(subject, load_recipe("float"), (load_target(target),), tmp_path).bundle
    assert bundle.manifest.states == subject.states
    with Runner.open(bundle.folder, f"{target}-float32") as runner:
        generation = Generation(runner, "abc", 10)
        assert "abc" + "".join(generation) == by_hand(subject.module, "abc", 10)
        assert generation.tokens == 10
        assert 0 < generation.first_token_s <= generation.seconds
        drawn = ["".join(Generation(runner, "abc", 10, Sampling(1.0, 5, s))) for s in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
def test_what_cannot_be_written_is_refused(tmp_path) -> None:
    compress(writer(), load_recipe("float"), (load_target("ort"),), tmp_path)
    with Runner.open(tmp_path) as runner:
        for prompt, count, says in (
            ("", 1, "empty"),
            ("abz", 1, "character 3 of the text is 'z'"),
            ("abc", 0, "at least 1"),
            ("abc", 14, "the prompt has 3 characters and 14 shall follow, the network sees 16"),
            ("a" * 17, 1, "17 characters, the network sees 16"),
        ):
            with pytest.raises(BadInputError, match=says):
                Generation(runner, prompt, count)


@pytest.mark.slow
def test_states_that_are_not_the_last_ones(tmp_path) -> None:
    subject = Subject("sum", Sum(), sums(), states=(State("x", "add", (3,)),))
    with pytest.raises(BadInputError, match=r"the inputs \['x'\]: they must be the last inputs"):
        compress(subject, load_recipe("float"), (load_target("ort"),), tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"seed": -1}, "seed"),
    ],
)
def test_sampling_that_means_nothing(settings, says) -> None:
    with pytest.raises(BadInputError, match=says):
        Sampling(**settings)


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    random = np.random.default_rng(0)
    drawn = [Sampling(1.0).choose(logits, random) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, np.exp(logits), atol=0.03)
    some = [Sampling(1.0, top_k=2).choose(logits, random) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(some) / 4000, [0.625, 0.375], atol=0.03)
    cold = [Sampling(0.5).choose(logits, random) for _ in range(4000)]
    squared = np.exp(2 * logits)
    np.testing.assert_allclose(np.bincount(cold) / 4000, squared / squared.sum(), atol=0.03)
