"""The reference models: shipped weights and records agree, recounted and rescored here."""

import hashlib
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from edgedl.models import catalog
from edgedl.models.catalog import (
    REFERENCE_MODELS,
    TrainingRecord,
    build,
    find_model,
    load_pretrained,
    load_record,
    make_task,
)
from edgedl.models.data.datasets import DATASETS, load_split
from edgedl.runtime.errors import BadInputError, IntegrityError

WEIGHTS = files("edgedl.models.weights")
NAMES = tuple(REFERENCE_MODELS)
# Multiply-accumulates of ResNet-8's stacks per input pixel; each stride divides the pixels by 4.
STACK = 2 * 16 * 144 + (32 * 144 + 32 * 288 + 32 * 16) // 4 + (64 * 288 + 64 * 576 + 64 * 32) // 16


def count_macs(module, shape):
    """Count multiply-accumulates of convolutions and linear layers from the shapes they meet."""
    counted = []

    def hook(layer, inputs, output):
        per_value = layer.weight[0].numel()
        counted.append(output[0].numel() * per_value)

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        module.eval()(torch.zeros(1, *shape))
    return sum(counted)


def input_shape(model):
    height, width, channels = DATASETS[model.dataset].image_shape
    return channels, height, width


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # 5x5x1x6 at 28x28, 5x5x6x16 at 10x10, then three linear layers.
        ("lenet5-fashion_mnist", 61_706, 117_600 + 240_000 + 48_000 + 10_080 + 840),
        ("resnet8-fashion_mnist", 77_562, 28 * 28 * (1 * 144 + STACK) + 640),
        ("resnet8-cifar10", 77_850, 32 * 32 * (3 * 144 + STACK) + 640),
    ],
)
def test_size_of_each_architecture(name, parameters, macs):
    module = build(REFERENCE_MODELS[name])
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert count_macs(module, input_shape(REFERENCE_MODELS[name])) == macs


@pytest.mark.parametrize("name", NAMES)
def test_record_agrees_with_the_model(name):
    model = find_model(name)
    record = load_record(model)
    module = build(model)
    assert record.name == name
    assert record.epochs == model.plan.epochs
    assert record.command.startswith(f"edgedl train {name} ")
    assert f"--seed {record.seed}" in record.command
    assert record.dataset.startswith(f"{model.dataset} train")
    assert DATASETS[model.dataset].licence in record.dataset
    assert record.test_samples == DATASETS[model.dataset].sizes["test"]
    assert record.parameters == sum(p.numel() for p in module.parameters())
    assert record.macs == count_macs(module, input_shape(model))
    assert 85 < record.test_top1_percent < 100


@pytest.mark.parametrize("name", NAMES)
def test_weight_file_agrees_with_the_record(name):
    model = find_model(name)
    record = load_record(model)
    content = (WEIGHTS / f"{name}.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == record.weights_sha256
    stored = safetensors.numpy.load(content)
    state = build(model).state_dict()
    assert {k: v.shape for k, v in stored.items()} == {k: tuple(v.shape) for k, v in state.items()}
    assert all(np.isfinite(v).all() for v in stored.values())
    loaded = load_pretrained(model)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), stored[key])


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_network_runs(name):
    model = find_model(name)
    with torch.no_grad():
        logits = load_pretrained(model)(torch.rand(3, *input_shape(model)))
    assert logits.shape == (3, 10)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("fashion_mnist")])
def test_recorded_accuracy_holds_on_some_pictures(name):
    model = find_model(name)
    share = load_record(model).test_top1_percent / 100
    test = load_split("fashion_mnist", "test")
    x = torch.from_numpy(test.images[:500].transpose(0, 3, 1, 2).copy()).float() / 255
    with torch.no_grad():
        found = load_pretrained(model)(x).argmax(1).numpy()
    accuracy = np.mean(found == test.labels[:500])
    assert abs(accuracy - share) < 4 * np.sqrt(share * (1 - share) / 500)


def test_unknown_model(refused):
    with refused(BadInputError, "'resnet50'", "file.py:function", *NAMES):
        find_model("resnet50")


def test_model_without_weights(refused):
    model = replace(REFERENCE_MODELS["lenet5-fashion_mnist"], name="lenet5-toy")
    with refused(BadInputError, "no weights ship for lenet5-toy", "edgedl train lenet5-toy"):
        load_record(model)
    with refused(BadInputError, "no weights ship"):
        load_pretrained(model)


@pytest.fixture
def own_weights(tmp_path, monkeypatch):
    """A weights folder with one freshly made model, read by the catalog in place of its own."""
    model = REFERENCE_MODELS["lenet5-fashion_mnist"]
    content = safetensors.numpy.save({k: v.numpy() for k, v in build(model).state_dict().items()})
    sha256 = hashlib.sha256(content).hexdigest()
    record = TrainingRecord(
        name=model.name, dataset="toy", command="toy", seed=0, epochs=1, test_top1_percent=10.0,
        test_samples=1, parameters=1, macs=1, torch="2", weights_sha256=sha256,
    )  # fmt: skip
    (tmp_path / f"{model.name}.safetensors").write_bytes(content)
    (tmp_path / f"{model.name}.json").write_bytes(msgspec.json.encode(record))
    monkeypatch.setattr(catalog, "files", lambda package: tmp_path)
    return tmp_path / model.name


def with_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def test_own_weights_load(own_weights):
    model = REFERENCE_MODELS["lenet5-fashion_mnist"]
    stored = safetensors.numpy.load_file(with_suffix(own_weights, ".safetensors"))
    loaded = load_pretrained(model).state_dict()
    assert set(loaded) == set(stored)
    for key, value in stored.items():
        np.testing.assert_array_equal(loaded[key].numpy(), value)


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "swap"])
def test_damaged_weights(refused, own_weights, damage):
    path = with_suffix(own_weights, ".safetensors")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    elif damage == "cut":
        del content[-4:]
    elif damage == "grow":
        content += b"\x00"
    else:
        content[-4:], content[-8:-4] = content[-8:-4], content[-4:]
    path.write_bytes(content)
    with refused(IntegrityError, "lenet5-fashion_mnist", "damaged"):
        load_pretrained(REFERENCE_MODELS["lenet5-fashion_mnist"])


def test_record_with_an_unknown_key(own_weights):
    path = with_suffix(own_weights, ".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": 1}))
    with pytest.raises(msgspec.ValidationError, match="colour"):
        load_record(REFERENCE_MODELS["lenet5-fashion_mnist"])


def test_task_scores_on_test_and_calibrates_on_training_data():
    task = make_task("fashion_mnist")
    assert task.classes == DATASETS["fashion_mnist"].classes
    for name, split in (("test", "test"), ("calibration", "train_10k")):
        expected = load_split("fashion_mnist", split)
        batch = next(task.batches(name, 64))
        pixels = expected.images[:64].transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(batch.inputs[0], pixels, atol=1e-6)
        np.testing.assert_array_equal(batch.labels, expected.labels[:64])
    assert sum(len(b.labels) for b in task.batches("test", 1000)) == 10_000


def test_task_of_a_set_that_was_not_fetched(refused):
    task = make_task("cifar10")
    assert (task.preprocessing.channels, task.preprocessing.height) == (3, 32)
    for split in ("test", "calibration"):
        with refused(BadInputError, "edgedl data fetch cifar10"):
            next(task.batches(split, 10))
    with refused(BadInputError, "'imagenet'"):
        make_task("imagenet")
