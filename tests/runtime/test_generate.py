"""What language models write: files of every runtime against the network, draws, bad prompts."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from command import assert_one_line
from writer import make_writer, written_by

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.targets.named import load_target
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.generate import Generation, Sampling
from edgedl.runtime.runner import Runner

RUNTIMES = ("ort", "openvino", "tflite")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a bundle with float32 files of a small language model."""
    made = tmp_path_factory.mktemp("writer")
    targets = tuple(load_target(name) for name in RUNTIMES)
    compress(make_writer(), load_recipe("float"), targets, made)
    return made


@pytest.fixture
def runner(folder) -> Iterator[Runner]:
    with Runner.open(folder, "ort-float32") as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNTIMES)
def test_every_runtime_writes_what_the_network_does(target, folder) -> None:
    with Runner.open(folder, f"{target}-float32") as runner:
        generation = Generation(runner, "abc", 10)
        assert "abc" + "".join(generation) == written_by(make_writer().module, "abc", 10)
        assert (generation.text, generation.tokens) == ("".join(generation), 10)
        assert 0 < generation.first_token_s <= generation.seconds


@pytest.mark.slow
def test_the_same_seed_draws_the_same(runner) -> None:
    drawn = ["".join(Generation(runner, "abc", 12, Sampling(1.0, 5, s))) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "count", "says"),
    [
        ("", 1, "empty"),
        ("abz", 1, "character 3 of the text is 'z'"),
        ("abc", 0, "at least 1"),
        ("abc", 14, "the prompt has 3 characters and 14 shall follow, the network sees 16"),
        ("a" * 17, 1, "17 characters, the network sees 16"),
    ],
)
def test_what_cannot_be_written_is_refused(runner, prompt, count, says) -> None:
    with pytest.raises(BadInputError, match=says):
        Generation(runner, prompt, count)


@pytest.mark.slow
def test_the_command_writes(folder, tmp_path, edgedl) -> None:
    expected = written_by(make_writer().module, "abc", 5)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("abc\n")
    options = ("run", str(folder), "--artifact", "ort-float32", "--tokens", "5")
    shown = edgedl(*options, "--prompt", "abc")
    assert shown.stdout.splitlines()[-1] == expected
    assert "first token after" in shown.stderr
    found = msgspec.json.decode(edgedl(*options, "--input", str(prompt), "--json").stdout)
    assert found["prompt"] + found["text"] == expected
    assert found["first_token_ms"] > 0
    assert found["tokens_per_s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--prompt"),
        (("--prompt", "a", "--input", "x.txt"), "--prompt"),
        (("--prompt", "z"), "'z'"),
        (("--prompt", "a", "--tokens", "16"), "sees 16"),
        (("--prompt", "a", "--seed", "-1"), "--seed"),
        (("--prompt", "a", "--temperature", "-1"), "--temperature"),
        (("--input", "missing.txt"), "missing.txt"),
    ],
)
def test_wrong_options_are_one_line(folder, edgedl, options, says) -> None:
    assert_one_line(edgedl("run", folder, *options), 2, says)


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
