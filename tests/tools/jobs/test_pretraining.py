"""Training without labels: an encoder learns hidden words, a stack of layers its input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run
from torch import nn

from edgedl.compress.training import TrainingSettings
from edgedl.compress.training.processes import OneProcess
from edgedl.models.data.datasets import DATASETS, cached_path
from edgedl.models.data.images import LabelledImages, write_splits
from edgedl.models.data.texts import LabelledTexts, write_texts
from edgedl.models.reference.pretrained import build, load_weights
from edgedl.models.reference.table import REFERENCE_MODELS
from edgedl.runtime.progress import Event, Progress
from edgedl.tools.jobs.pretraining import CHECKPOINT, Pretraining

PAIRS = (("net", "profit"), ("crude", "oil"), ("grain", "tonnes"), ("interest", "rate"))
BERT, DBN = REFERENCE_MODELS["bert-reuters"], REFERENCE_MODELS["dbn-fashion_mnist"]


@pytest.fixture
def reuters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small set in the place of the articles: two words go together in each class."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def split(count: int) -> LabelledTexts:
        labels = np.arange(count) % len(PAIRS)
        return LabelledTexts(tuple(" ".join(PAIRS[i] * 6) for i in labels), labels)

    words = tuple(word for pair in PAIRS for word in pair)
    monkeypatch.setitem(DATASETS, "reuters", replace(DATASETS["reuters"], words=words, length=16))
    write_texts(cached_path("reuters"), {"train": split(128), "test": split(32)})


def pretraining(model: str, folder: Path, told: list[str], epochs: int) -> Pretraining:
    settings = TrainingSettings(
        epochs, 64, 1e-3, optimizer="adamw", weight_decay=0.05, max_gradient_norm=1.0
    )

    def listen(event: Event) -> None:
        told.append(event.text)

    dataset = DATASETS[REFERENCE_MODELS[model].dataset]
    return Pretraining(dataset, settings, folder, OneProcess(), Progress(listen))


def test_an_encoder_learns_hidden_words(reuters: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build(BERT)
    classes = net.fc.weight.detach().clone()
    told: list[str] = []
    assert pretraining(BERT.name, tmp_path, told, 12).run(net) > 0
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in told if "loss" in line]
    # Words alone are guessed with log 8; those beside them tell the pair.
    assert len(losses) == 12
    assert losses[0] > np.log(8)
    assert losses[-1] < np.log(8) - 0.5
    assert torch.equal(net.fc.weight, classes)
    assert (tmp_path / CHECKPOINT).is_file()


def test_layers_learn_their_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    pictures = LabelledImages(
        np.tile(rng.integers(0, 256, (4, 28, 28, 1)).astype(np.uint8), (64, 1, 1, 1)),
        np.zeros(256, np.int64),
    )
    write_splits(cached_path("fashion_mnist"), {"train": pictures, "test": pictures})
    told: list[str] = []
    pretraining(DBN.name, tmp_path, told, 5).run(build(DBN))
    errors = [float(line.split("error ")[1]) for line in told if "layer 1," in line]
    assert len(errors) == 5
    assert errors[-1] < errors[0]


def test_other_networks_have_none(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no pre-training of Linear"):
        pretraining(DBN.name, tmp_path, [], 1).run(nn.Linear(1, 1))


@pytest.mark.slow
def test_a_text_classifier_is_trained(edgedl: Run, reuters: None, tmp_path: Path) -> None:
    done = edgedl("train", BERT.name, "--out", tmp_path / "run", "--threads", 1, "--epochs", 3)
    assert done.returncode == 0, done.stderr
    assert "pre-training on hidden words" in done.stderr
    assert "% top1 on 32 test samples" in done.stdout
    content = (tmp_path / "run" / f"{BERT.name}.safetensors").read_bytes()
    load_weights(build(BERT), content, "trained")
