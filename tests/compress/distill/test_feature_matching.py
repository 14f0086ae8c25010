"""Students that follow a teacher's inner values: projections, losses that fall, what cannot be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, noise
from tiny import make_net
from torch import Tensor, nn

from edgedl.compress.distill.feature_matching import (
    ChannelProjection,
    FeatureLoss,
    match_features,
)
from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.recipe.recipe_file import parse_recipe
from edgedl.compress.state import ModelState
from edgedl.compress.training import TrainingSettings, train
from edgedl.compress.training.task_batches import Targets, TaskBatches
from edgedl.runtime.errors import BadInputError
from edgedl.tools.jobs.teachers import find_teacher

PATHS = ("pointwise", "branch")
X = noise(4, 3, 8, 8)


@pytest.fixture(scope="module")
def pruned(float_state: ModelState) -> ModelState:
    """The tiny network with half of its channels."""
    return PruneChannels(0.5, multiple=1).apply(float_state)


def convolutions(width: int, stride: int = 1) -> Net:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.fc(F.relu(m.stack(x)).mean((2, 3)))

    layers = {"stack": nn.Conv2d(3, width, 3, stride), "fc": nn.Linear(width, 4)}
    return Net(forward, **layers).eval()


def traced(module: nn.Module) -> TracedNetwork:
    return TracedNetwork(export_graph(module, (X,)))


def weights(state: ModelState) -> dict[str, Tensor]:
    return cast(TracedNetwork, state.subject.module).tensors()


def assert_same_weights(a: ModelState, b: ModelState) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_projection_is_a_1x1_convolution_or_a_linear_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = ChannelProjection(1, 3, 5, generator)
    expected = F.conv2d(X, pictures.weight[:, :, None, None], pictures.bias)
    torch.testing.assert_close(pictures(X), expected)
    tokens = ChannelProjection(2, 6, 4, generator)
    x = noise(2, 7, 6)
    torch.testing.assert_close(tokens(x), F.linear(x, tokens.weight, tokens.bias))


def test_only_other_widths_are_projected() -> None:
    wide, narrow = convolutions(8), convolutions(5)
    matching = match_features(traced(narrow), wide, (X,), ("stack", "fc"), "projection", 0)
    output, stack, fc = matching.student(X)
    assert isinstance(matching.student.projections[1], nn.Identity)
    torch.testing.assert_close(output, narrow(X))
    torch.testing.assert_close(fc, narrow(X))
    assert stack.shape == wide.stack(X).shape
    torch.testing.assert_close(matching.teacher(X)[1], wide.stack(X))


def test_the_loss_is_the_outputs_plus_the_weighted_features() -> None:
    matching = match_features(
        traced(convolutions(5)), convolutions(5), (X,), ("stack",), "projection", 0
    )
    own, wanted = (noise(4, 4), noise(4, 5, 6, 6)), (noise(4, 4, seed=1), noise(4, 5, 6, 6, seed=2))
    seen: list[tuple[int, int]] = []

    def outputs(values: tuple[Tensor, ...], targets: Targets) -> Tensor:
        seen.append((len(values), len(targets.teacher)))
        return values[0].sum()

    found = matching.added_to(outputs, 3.0)(own, Targets(torch.zeros(4), wanted))
    torch.testing.assert_close(found, own[0].sum() + 3 * (own[1] - wanted[1]).square().mean())
    assert seen == [(1, 1)]


@pytest.mark.parametrize("kind", ["projection", "attention", "relational"])
def test_every_loss_falls_when_it_is_trained(pruned: ModelState, kind: FeatureLoss) -> None:
    subject = pruned.subject
    network = TracedNetwork(export_graph(subject.module, subject.example_inputs()))
    assert pruned.parent is not None
    matching = match_features(network, pruned.parent, subject.example_inputs(), PATHS, kind, 0)
    batches = TaskBatches(subject.task, "calibration", 64, 16, matching.teacher)
    loss = matching.added_to(lambda outputs, targets: torch.zeros(()), 1.0)
    settings = TrainingSettings(8, 16, 3e-3, optimizer="adamw", weight_decay=0.0)
    before = network.tensors()
    records = train(matching.student, batches, loss, settings)
    assert records[-1].mean_loss < 0.9 * records[0].mean_loss
    # What no compared value depends on stands still.
    after = network.tensors()
    assert after["fc.weight"].equal(before["fc.weight"])
    assert not after["stem.weight"].equal(before["stem.weight"])


class StoppedError(Exception):
    pass


def stopping(after: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return an augmentation that adds noise, and breaks off after some batches."""
    calls = 0

    def augment(x: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > after:
            raise StoppedError
        return x + 0.01 * torch.randn(x.shape, generator=generator)

    return augment


def test_a_resumed_run_equals_an_uninterrupted_one(pruned: ModelState, tmp_path: Path) -> None:
    stage = FineTune(
        3, batch_size=16, learning_rate=0.02, features=PATHS, feature_loss="projection"
    )

    def run(folder: Path | None, after: int) -> ModelState:
        subject = replace(pruned.subject, augment=stopping(after))
        return stage.apply(replace(pruned, subject=subject, workspace=folder))

    whole = run(None, 99)
    with pytest.raises(StoppedError):
        run(tmp_path, 2 * 4 + 1)
    (checkpoint,) = tmp_path.iterdir()
    saved = torch.load(checkpoint, weights_only=True)
    assert len(saved["records"]) == 2
    assert saved["module"]["projections.0.weight"].shape == (8, 4)
    resumed = run(tmp_path, 1 * 4)
    assert_same_weights(whole, resumed)
    assert weights(whole).keys() == weights(pruned).keys()
    assert whole.history[-1].settings["features"] == PATHS
    assert whole.history[-1].settings["last_loss"] == resumed.history[-1].settings["last_loss"]


def test_labels_alone_with_features(pruned: ModelState) -> None:
    stage = FineTune(1, batch_size=16, distil=0.0, learning_rate=1e-3)
    taught = FineTune(
        1, batch_size=16, distil=0.0, learning_rate=1e-3, features=("bn",), feature_loss="attention"
    )
    alone, followed = stage.apply(pruned), taught.apply(pruned)
    assert not weights(alone)["stem.weight"].equal(weights(followed)["stem.weight"])


def test_the_subjects_teachers_teach(pruned: ModelState, tmp_path: Path) -> None:
    stage = FineTune(1, batch_size=16, learning_rate=0.01)

    def taught_by(*teachers: nn.Module) -> ModelState:
        subject = replace(pruned.subject, teachers=teachers)
        return stage.apply(replace(pruned, subject=subject, workspace=tmp_path))

    parents = stage.apply(pruned)
    assert_same_weights(taught_by(make_net()), parents)
    twice = weights(taught_by(make_net(), make_net()))
    for name, tensor in weights(parents).items():
        torch.testing.assert_close(twice[name], tensor)
    torch.manual_seed(5)
    other = taught_by(type(make_net())())
    assert not weights(other)["fc.weight"].equal(weights(parents)["fc.weight"])
    assert other.parent is pruned.parent
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_has_no_features(pruned: ModelState, compressed: CompressedModel) -> None:
    subject = replace(pruned.subject, teachers=(find_teacher(str(compressed.bundle.folder)),))
    stage = FineTune(1, features=PATHS, feature_loss="attention")
    with pytest.raises(BadInputError, match="the teacher only answers, as the file of a bundle"):
        stage.apply(replace(pruned, subject=subject))


def test_several_teachers_have_no_features(pruned: ModelState) -> None:
    subject = replace(pruned.subject, teachers=(make_net(), make_net()))
    stage = FineTune(1, features=PATHS, feature_loss="attention")
    with pytest.raises(BadInputError, match="features of 2 teachers cannot be averaged"):
        stage.apply(replace(pruned, subject=subject))


def test_features_without_a_loss_and_a_loss_without_features() -> None:
    with pytest.raises(BadInputError, match="go together"):
        FineTune(features=PATHS)
    with pytest.raises(BadInputError, match="go together"):
        FineTune(feature_loss="attention")


def test_a_recipe_names_features() -> None:
    text = """description: x
stages:
  - stage: fine_tune
    features: [stack2, stack3.conv]
    feature_loss: relational
"""
    (stage,) = parse_recipe(text, "mine.yaml").stages
    assert stage == FineTune(features=("stack2", "stack3.conv"), feature_loss="relational")
    with pytest.raises(BadInputError, match=r"mine\.yaml, line 3: features and feature_loss go"):
        parse_recipe(text.replace("relational", "none"), "mine.yaml")


@pytest.mark.parametrize("kind", ["projection", "attention"])
def test_other_sizes_are_refused(kind: FeatureLoss) -> None:
    student, teacher = traced(convolutions(5, stride=2)), convolutions(8)
    message = r"'stack' are \[B, 5, 3, 3\] in the network and \[B, 8, 6, 6\]"
    with pytest.raises(BadInputError, match=message):
        match_features(student, teacher, (X,), ("stack",), kind, 0)


def test_relations_are_of_any_size() -> None:
    student, teacher = traced(convolutions(5, stride=2)), convolutions(8)
    matching = match_features(student, teacher, (X,), ("stack",), "relational", 0)
    own, wanted = matching.student(X)[1], matching.teacher(X)[1]
    assert 0 < matching.distance(own, wanted).item() < 3


def test_vectors_have_no_attention_map() -> None:
    with pytest.raises(BadInputError, match=r"the values of 'fc' are \[B, 4\]"):
        match_features(traced(convolutions(5)), convolutions(5), (X,), ("fc",), "attention", 0)


def test_values_whose_first_axis_is_not_the_samples() -> None:
    module = Net(
        lambda m, x: m.fc(m.turned(x.flatten(2).transpose(0, 1)).mean(0)),
        turned=nn.Linear(64, 5),
        fc=nn.Linear(5, 4),
    ).eval()
    with pytest.raises(BadInputError, match=r"'turned' are \[3, 4, 5\] for 4 samples"):
        match_features(traced(module), module, (X,), ("turned",), "relational", 0)


@pytest.mark.parametrize(("path", "who"), [("fc", "teacher"), ("last", "network")])
def test_a_name_that_only_one_of_them_has(path: str, who: str) -> None:
    other = Net(lambda m, x: m.last(m.stack(x).mean((2, 3))), stack=nn.Conv2d(3, 5, 3))
    other.last = nn.Linear(5, 4)
    with pytest.raises(BadInputError, match=f"the {who} computes no module '{path}'"):
        match_features(traced(convolutions(5)), other.eval(), (X,), (path,), "projection", 0)
