"""The reference models: shipped weights and records agree, recounted and rescored here."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from edgedl.models.attention import Attention
from edgedl.models.data.datasets import DATASETS, load_split
from edgedl.models.gpt import DecoderLayer
from edgedl.models.reference import pretrained
from edgedl.models.reference.pretrained import (
    TrainingRecord,
    build,
    has_weights,
    load_pretrained,
    load_record,
    load_weights,
)
from edgedl.models.reference.table import REFERENCE_MODELS, find_model
from edgedl.models.shipped import shipped
from edgedl.runtime.errors import BadInputError, IntegrityError

WEIGHTS = shipped("weights")
NAMES = tuple(REFERENCE_MODELS)
TRAINED = tuple(n for n, m in REFERENCE_MODELS.items() if has_weights(m) and not m.published)
# Multiply-accumulates of ResNet-8's stacks per input pixel; each stride divides the pixels by 4.
STACK = 2 * 16 * 144 + (32 * 144 + 32 * 288 + 32 * 16) // 4 + (64 * 288 + 64 * 576 + 64 * 32) // 16


def count_macs(module, inputs):
    """Count multiply-accumulates of layers from the shapes they meet."""
    counted = []

    def hook(layer, inputs, output):
        per_value = layer.weight[0].numel()
        counted.append(output[0].numel() * per_value)

    def hook_over_time(layer, inputs, output):
        # Every step multiplies each gate's input and state weights once.
        counted.append(
            inputs[0].shape[1] * (layer.weight_ih_l0.numel() + layer.weight_hh_l0.numel())
        )

    def hook_of_attention(layer, inputs, output):
        # Each position is compared with each, then takes its share of each.
        counted.append(2 * output[0].numel() * output.shape[1])

    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.register_forward_hook(hook_of_attention)
        if isinstance(layer, DecoderLayer):
            layer.register_forward_hook(
                lambda layer, inputs, output: hook_of_attention(layer, inputs, output[0])
            )
        if isinstance(layer, nn.RNNBase):
            layer.register_forward_hook(hook_over_time)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(hook)
    with torch.no_grad():
        module.eval()(*inputs)
    return sum(counted)


def inputs(model, count):
    """Return inputs of some samples: random pictures or windows, texts of random words."""
    dataset = DATASETS[model.dataset]
    first, *others = (torch.from_numpy(x) for x in dataset.example_inputs())
    if first.is_floating_point():
        return [torch.rand(count, *first.shape[1:])]
    words = torch.randint(1, dataset.network_arguments["vocabulary"], (count, first.shape[1]))
    return [words, *(x.repeat(count, 1) for x in others)]


def outputs(model):
    """Return how many classes a network tells apart, or characters."""
    arguments = DATASETS[model.dataset].network_arguments
    return arguments.get("classes", arguments.get("vocabulary"))


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        # 5x5x1x6 at 28x28, 5x5x6x16 at 10x10, then three linear layers.
        ("lenet5-fashion_mnist", 61_706, 117_600 + 240_000 + 48_000 + 10_080 + 840),
        ("resnet8-fashion_mnist", 77_562, 28 * 28 * (1 * 144 + STACK) + 640),
        ("resnet8-cifar10", 77_850, 32 * 32 * (3 * 144 + STACK) + 640),
        ("perceptron-fashion_mnist", 7_850, 7_840),
        # 100 steps of 4 gates of 64 units over 6 channels and 64 states, then the classifier.
        ("lstm-watch", 18_899, 100 * 4 * 64 * (6 + 64) + 7 * 64),
        ("gru-watch", 14_291, 100 * 3 * 64 * (6 + 64) + 7 * 64),
        # The picture's current once; 4 time steps of a convolution and a layer of 128 neurons.
        ("snn-fashion_mnist", 206_970, 784 * 144 + 4 * (196 * 4608 + 1568 * 128) + 1280),
        # Of each of 64 words four projections, a layer of 256 units, and attention to 64 words.
        (
            "bert-reuters",
            6064 * 128 + 4 * 128 + 2 * 132_480 + 1032,
            2 * 64 * (4 * 128**2 + 2 * 128 * 256 + 2 * 64 * 128) + 8 * 128,
        ),
        # Table 6 of the paper: 0.27 million; here with two 1x1 shortcuts and their norms.
        ("resnet20-cifar10", 269_722 + 32 * 16 + 64 * 32 + 2 * 32 + 2 * 64, None),
    ],
)
def test_size_of_each_architecture(name, parameters, macs):
    module = build(REFERENCE_MODELS[name])
    assert sum(p.numel() for p in module.parameters()) == parameters
    if macs is not None:
        assert count_macs(module, inputs(REFERENCE_MODELS[name], 1)) == macs


@pytest.mark.parametrize("name", TRAINED)
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
    assert record.test_samples == {"watch": 1484, "reuters": 2189, "sotu": 128}.get(
        model.dataset, 10_000
    )
    assert record.parameters == sum(p.numel() for p in module.parameters())
    assert record.macs == count_macs(module, inputs(model, 1))
    assert 80 < record.test_score_percent < 100


@pytest.mark.parametrize("name", TRAINED)
def test_weight_file_agrees_with_the_record(name):
    model = find_model(name)
    record = load_record(model)
    content = (WEIGHTS / f"{name}.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == record.weights_sha256
    assert len(content) <= 4_100_000
    stored = safetensors.numpy.load(content)
    state = build(model).state_dict()
    assert {k: v.shape for k, v in stored.items()} == {k: tuple(v.shape) for k, v in state.items()}
    assert all(np.isfinite(v).all() for v in stored.values())
    loaded = load_pretrained(model)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), stored[key])


@pytest.mark.parametrize("name", TRAINED)
def test_pretrained_network_runs(name):
    model = find_model(name)
    with torch.no_grad():
        logits = load_pretrained(model)(*inputs(model, 3))
    assert (logits.shape[0], logits.shape[-1]) == (3, outputs(model))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", [n for n in TRAINED if n.endswith("fashion_mnist")])
def test_recorded_accuracy_holds_on_some_pictures(name):
    model = find_model(name)
    share = load_record(model).test_score_percent / 100
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
        name=model.name, dataset="toy", command="toy", seed=0, epochs=1, test_score_percent=10.0,
        test_samples=1, parameters=1, macs=1, torch="2", weights_sha256=sha256,
    )  # fmt: skip
    (tmp_path / f"{model.name}.safetensors").write_bytes(content)
    (tmp_path / f"{model.name}.json").write_bytes(msgspec.json.encode(record))
    monkeypatch.setattr(pretrained, "shipped", lambda folder: tmp_path)
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


def test_all_weights_together_are_small():
    sizes = [len(p.read_bytes()) for p in WEIGHTS.iterdir() if p.name.endswith(".safetensors")]
    assert sum(sizes) <= 40_000_000


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_built_and_computes(name):
    model = REFERENCE_MODELS[name]
    with torch.no_grad():
        logits = build(model).eval()(*inputs(model, 2))
    assert (logits.shape[0], logits.shape[-1]) == (2, outputs(model))


def test_checkpoint_that_does_not_fit_names_the_first_mismatch(refused):
    other = build(REFERENCE_MODELS["resnet8-cifar10"])
    content = safetensors.numpy.save({k: v.numpy() for k, v in other.state_dict().items()})
    with refused(BadInputError, "mine", "'conv.weight'", "[16, 3, 3, 3]", "[16, 1, 3, 3]"):
        load_weights(build(REFERENCE_MODELS["resnet8-fashion_mnist"]), content, "mine")
    with refused(BadInputError, "mine", "no 'conv1.weight'"):
        load_weights(build(REFERENCE_MODELS["lenet5-fashion_mnist"]), content, "mine")
    more = {**{k: v.numpy() for k, v in other.state_dict().items()}, "extra": np.zeros(3)}
    with refused(BadInputError, "mine", "no 'extra'"):
        load_weights(other, safetensors.numpy.save(more), "mine")
    with refused(BadInputError, "mine", "not a readable safetensors file"):
        load_weights(other, content[:100], "mine")


def test_float16_weights_are_widened():
    module = build(REFERENCE_MODELS["lenet5-fashion_mnist"])
    half = {k: v.half().numpy() for k, v in module.state_dict().items()}
    loaded = load_weights(module, safetensors.numpy.save(half), "half")
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32}
    np.testing.assert_array_equal(loaded.conv1.weight.detach().numpy(), half["conv1.weight"])
