"""Networks of sounds and of texts, from a subject to ``edgedl run`` on files that people have."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

from edgedl.compress.pipeline import compress
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.preprocess.audio import AudioPreprocessing, LogMel
from edgedl.runtime.preprocess.text import TextPreprocessing
from edgedl.runtime.runner import Runner
from edgedl.runtime.task.task import ArrayTask, Samples

RATE, CLIP = 8000, 4000
SOUNDS = AudioPreprocessing(
    RATE, CLIP, CLIP, LogMel(256, 200, 80, 16, 50.0, 4000.0, mean=-6.0, std=4.0), "N1MT"
)
WORDS = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "good", "bad", "very", "film"))}


def tones(count: int, seed: int) -> Samples:
    """Return clips of low and of high tones, int16 [N, 4000], with their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    hz = np.where(labels, rng.uniform(2000, 3000, count), rng.uniform(200, 400, count))
    waves = np.sin(2 * np.pi * hz[:, None] * np.arange(CLIP) / RATE)
    noisy = 0.3 * waves + rng.normal(0, 0.02, waves.shape)
    return Samples((np.rint(noisy * 32767).astype(np.int16),), labels)


def sound_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 1)), nn.Flatten(),
        nn.Linear(32, 2),
    ).eval()  # fmt: skip


def fitted(network: nn.Module, x: Tensor, labels: Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
    return network


@pytest.mark.slow
def test_a_network_of_sounds(edgedl: Run, tmp_path: Path) -> None:
    train = tones(64, 0)
    x = torch.from_numpy(np.asarray(SOUNDS.from_raw(train.inputs[0]), np.float32))
    network = fitted(sound_network(), x, torch.from_numpy(train.labels))
    task = ArrayTask(
        "tones",
        {"calibration": lambda: tones(64, 1), "test": lambda: tones(64, 2)},
        classes=("low", "high"),
        preprocessing=SOUNDS,
    )
    folder = tmp_path / "bundle"
    folder.mkdir()
    compress(Subject("tones", network, task), load_recipe("static_w8c_a8"), (ORT, TFLITE), folder)
    raw, labels = tones(3, 5)
    clip = np.concatenate(list(raw[0]))
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(clip.tobytes())
    for artifact in ("ort-int8", "tflite-int8"):
        done = edgedl(
            "run", folder, "--input", tmp_path / "a.wav", "--artifact", artifact, "--json"
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["classes"][0]["name"] for line in lines] == ["low", "high", "low"]
        assert lines[1]["source"].endswith("a.wav from 0.5 s")
        # What the device computes of the file is what the host computes of the samples, to the bit.
        with Runner.open(folder, artifact) as runner:
            (expected,) = runner(np.asarray(SOUNDS.from_raw(raw[0]), np.float32))
        found = [line["outputs"][runner.bundle.manifest.outputs[0].name] for line in lines]
        np.testing.assert_array_equal(np.float32(found), expected)
    assert list(labels) == [0, 1, 0]


class Words(nn.Module):
    """Averages embeddings of words over what the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(len(WORDS), 8)
        self.head = nn.Linear(8, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(2).to(torch.float32)
        return self.head((self.table(ids) * weights).sum(1) / weights.sum(1))


@pytest.mark.slow
def test_a_network_of_texts(edgedl: Run, tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    texts = TextPreprocessing(tokenizer.to_str(), 6, 0, ("ids", "mask"))
    lines = ["very good film", "bad film", "good", "very very bad", "a bad film", "a good one"]
    labels = np.array([1, 0, 1, 0, 0, 1])

    def samples() -> Samples:
        # Ids of 32 bits, as a network may have them; the file of text gives 64.
        inputs = tuple(x.astype(np.int32) for x in texts(lines * 8))
        return Samples(inputs, np.tile(labels, 8))

    class TwoInputs(nn.Module):
        def __init__(self, words: Words) -> None:
            super().__init__()
            self.words = words

        def forward(self, x: Tensor) -> Tensor:
            return self.words(x[0], x[1])

    words = Words()
    ids, mask = (torch.from_numpy(np.asarray(x)) for x in samples().inputs)
    fitted(TwoInputs(words), torch.stack([ids, mask]), torch.from_numpy(np.tile(labels, 8)))
    task = ArrayTask(
        "words",
        {"calibration": samples, "test": samples},
        classes=("bad", "good"),
        preprocessing=texts,
    )
    folder = tmp_path / "bundle"
    folder.mkdir()
    recipe = load_recipe("dynamic_w8_afp32")
    compress(Subject("words", words.eval(), task), recipe, (ORT,), folder)
    (tmp_path / "a.txt").write_text("\n".join(lines))
    done = edgedl(
        "run", folder, "--input", tmp_path / "a.txt", "--artifact", "ort-float32", "--json"
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = ["good" if label else "bad" for label in labels]
    assert [line["classes"][0]["name"] for line in found] == expected
    assert found[2]["source"].endswith("a.txt line 3")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    done = edgedl("run", folder, "--input", tmp_path / "a.wav")
    assert done.returncode == 2
    assert "takes text files or arrays (.npy, .npz), not '.wav' files" in done.stderr
