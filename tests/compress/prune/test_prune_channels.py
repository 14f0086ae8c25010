"""Pruning as a stage: widths, what may not be pruned, and the way back from a manifest."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
from listening import notes_to
from prunable_networks import make
from safetensors.torch import load, save
from small_networks import Net
from tiny import make_subject
from torch import nn

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.graph.cuts.channel_groups import channel_groups
from edgedl.compress.graph.cuts.tensor_axes import TensorAxes
from edgedl.compress.graph.cuts.widths import aligned, uniform_widths
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.equalize import Equalize
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.rebuild import rebuild
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.state import ModelState, begin
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError


@pytest.fixture
def state() -> ModelState:
    subject = make_subject()
    return begin(subject)


def macs(state: ModelState) -> tuple[int, int]:
    settings = state.history[-1].settings
    before, after = settings["macs_before"], settings["macs_after"]
    assert isinstance(before, int)
    assert isinstance(after, int)
    return before, after


def test_half_of_the_channels_is_a_quarter_of_the_weights(state: ModelState) -> None:
    pruned = PruneChannels(0.5, multiple=1).apply(state)
    assert isinstance(pruned.subject.module, TracedNetwork)
    assert pruned.parent is state.subject.module
    before, after = macs(pruned)
    assert 0.2 * before < after < 0.5 * before
    x = state.subject.example_inputs()
    torch.testing.assert_close(pruned.subject.module(*x), pruned.graph(*x), rtol=1e-4, atol=1e-5)
    assert state.graph(*x).shape == pruned.graph(*x).shape


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l1", "l2", "taylor", "lamp", "random"])
def test_every_importance_prunes_to_the_same_macs(state: ModelState, importance: str) -> None:
    stage = msgspec.convert(
        {"stage": "prune_channels", "multiple": 1, "importance": importance}, PruneChannels
    )
    assert macs(stage.apply(state)) == macs(PruneChannels(multiple=1).apply(state))


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_batch_norm_scales_say_nothing_of_channels_without_them(scope: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.ReLU(),
        nn.Linear(12, 4),
    )
    nn.init.uniform_(net[1].weight, 0.5, 1.5)
    state = begin(replace(make_subject(), module=net.eval()))
    stage = PruneChannels(0.3, importance="batch_norm", scope=scope, multiple=1)
    settings = stage.apply(state).history[-1].settings
    assert [line.split("=")[0] for line in settings["kept"]] == ["0.weight:0"]
    assert settings["whole"] == ("4.weight:0",)
    with pytest.raises(BadInputError, match="no batch norm follows"):
        PruneChannels(0.3, importance="batch_norm", keep=("0.weight",)).apply(state)


def test_global_pruning_reaches_its_share_of_the_macs(state: ModelState) -> None:
    before, after = macs(PruneChannels(0.5, scope="global", multiple=1).apply(state))
    assert after <= 0.5 * before
    assert after > 0.35 * before


def test_widths_are_what_kernels_like(state: ModelState) -> None:
    assert [aligned(w, 64, 16) for w in (1, 23, 25, 64)] == [16, 16, 32, 64]
    assert [aligned(w, 6, 16) for w in (0.2, 3)] == [6, 6]
    pruned = PruneChannels(0.4, multiple=4).apply(state)
    lines = pruned.history[-1].settings["kept"]
    assert isinstance(lines, tuple)
    assert lines
    widths = [len(line.split("=")[1].split(",")) for line in lines]
    assert all(width % 4 == 0 for width in widths)
    # All groups of the tiny network are as wide as one step of ONNX Runtime's kernels, or less.
    with pytest.raises(BadInputError, match="nothing would be removed in multiples of 16"):
        PruneChannels(0.5).apply(state)


def test_a_head_counts_as_its_width() -> None:
    module, inputs = make("attention")
    groups = {g.size: g for g in channel_groups(TensorAxes(export_graph(module, inputs)))}
    # 4 heads of 6: two of them are 12 columns. 16 channels of the residual sum, 32 hidden units.
    assert {size: group.unit for size, group in groups.items()} == {16: 1, 4: 6, 32: 1}
    assert [groups[4].step(m) for m in (1, 2, 4, 12, 16)] == [1, 1, 2, 2, 8]
    widths = uniform_widths(list(groups.values()), 0.5, 4)
    assert [widths[groups[size].axis] for size in (16, 4, 32)] == [8, 2, 16]


def test_flattened_channels_are_counted_where_they_are_computed() -> None:
    """A channel is 16 columns of the linear layer, and one filter of each convolution."""
    module, inputs = make("concatenated")
    units = [g.unit for g in channel_groups(TensorAxes(export_graph(module, inputs)))]
    assert units == [1, 1]


def test_what_is_named_stays_whole(state: ModelState) -> None:
    lines = PruneChannels(0.5, multiple=1).apply(state).history[-1].settings["kept"]
    assert isinstance(lines, tuple)
    first = lines[0].split(":")[0]
    left = PruneChannels(0.5, multiple=1, keep=(first,)).apply(state).history[-1].settings["kept"]
    assert isinstance(left, tuple)
    assert len(left) == len(lines) - 1


def test_a_pruned_network_is_rebuilt_from_module_and_history(state: ModelState) -> None:
    twice = PruneChannels(0.3, multiple=1, seed=1, importance="random").apply(
        PruneChannels(0.3, multiple=1).apply(state)
    )
    history = msgspec.json.decode(msgspec.json.encode(twice.history), type=tuple[HistoryEntry, ...])
    x = state.subject.example_inputs()
    assert isinstance(twice.subject.module, TracedNetwork)
    weights = load(save(twice.subject.module.tensors()))
    built = rebuild(make_subject().module, x, history, weights)
    torch.testing.assert_close(built(*x), twice.subject.module(*x))
    again = PruneChannels(0.3, multiple=1).apply(begin(replace(state.subject, module=built)))
    assert isinstance(again.subject.module, TracedNetwork)
    joined = (*history, *again.history)
    built = rebuild(make_subject().module, x, joined, again.subject.module.tensors())
    torch.testing.assert_close(built(*x), again.subject.module(*x))


def test_another_architecture_is_not_taken_for_the_pruned_one(state: ModelState) -> None:
    history = PruneChannels(0.5, multiple=1).apply(state).history
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 5))
    with pytest.raises(BadInputError, match="is it another architecture"):
        rebuild(other, (torch.zeros(2, 3, 8, 8),), history)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (PruneChannels(keep=("nothing",)), "keep names 'nothing'"),
        (PruneChannels(keep=("*",)), "nothing to prune"),
        (PruneChannels(0.01, multiple=1), "nothing would be removed"),
        (PruneChannels(0.97, multiple=1), "ratio 0.97 would leave none of the 8 channels of 'stem"),
    ],
)
def test_what_cannot_be_pruned(state: ModelState, stage: PruneChannels, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        stage.apply(state)


def test_what_is_wished_for_twice() -> None:
    with pytest.raises(BadInputError, match="one of ratio and speedup, not both"):
        PruneChannels(0.5, speedup=1.5)
    with pytest.raises(BadInputError, match="one of scope and speedup, not both"):
        PruneChannels(scope="global", speedup=1.5)
    with pytest.raises(BadInputError, match="one of blocks and speedup, not both"):
        PruneBlocks(2, speedup=1.5)


def test_an_operator_that_is_not_followed_is_told(state: ModelState) -> None:
    net = Net(
        lambda m, x: m.head(m.second(m.first(x).sort(1)[0]).relu().mean((2, 3))),
        first=nn.Conv2d(3, 8, 1),
        second=nn.Conv2d(8, 8, 1),
        head=nn.Linear(8, 4),
    )
    said: list[str] = []
    other = replace(
        begin(replace(state.subject, module=net.eval())), progress=notes_to(said.append)
    )
    settings = PruneChannels(0.5, multiple=1).apply(other).history[-1].settings
    assert settings["not_followed"] == ("pruning does not know the operator aten.sort",)
    assert [line.split("=")[0] for line in settings["kept"]] == ["second.weight:0"]
    assert "aten.sort, so channels around it are not pruned" in said[0]
    settings = PruneChannels(multiple=1).apply(state).history[-1].settings
    assert settings["not_followed"] == ()
    assert (settings["ratio"], settings["scope"]) == (0.5, "uniform")


@pytest.mark.slow
def test_heads_in_the_batch_are_pruned_to_files(state: ModelState, tmp_path: Path) -> None:
    """Half of the heads of ``nn.MultiheadAttention``, on the runtimes; parity is checked."""
    module, _ = make("multihead")
    module.head = nn.Linear(24, 4)
    subject = replace(state.subject, module=module)
    recipe = Recipe("", (PruneChannels(0.5, multiple=1), QuantizeStatic(32, 32)))
    made = compress(subject, recipe, (ORT, TFLITE), tmp_path)
    assert not made.refusals
    manifest = Bundle.open(tmp_path).manifest
    (kept,) = [line for line in manifest.history[0].settings["kept"] if "in_proj" in line]
    assert len(kept.split("=")[1].split(",")) == 2


def test_stages_in_an_impossible_order(state: ModelState) -> None:
    for first in (QuantizeStatic(32, 32), Equalize()):
        for then in (PruneChannels(), FineTune(1)):
            with pytest.raises(BadInputError, match="the recipe needs it before"):
                then.apply(first.apply(state))


def test_fine_tuning_learns_and_resumes(state: ModelState, tmp_path: Path) -> None:
    pruned = replace(PruneChannels(0.5, multiple=1).apply(state), workspace=tmp_path)
    stage = FineTune(3, batch_size=16, learning_rate=0.02)
    trained = stage.apply(pruned)
    assert trained.parent is state.subject.module
    (checkpoint,) = tmp_path.iterdir()
    again = stage.apply(pruned)
    x = state.subject.example_inputs()
    torch.testing.assert_close(again.graph(*x), trained.graph(*x), rtol=0, atol=0)
    assert checkpoint.name.startswith("fine_tune-")
    standing = FineTune(1, batch_size=16, learning_rate=1e-9).apply(pruned)
    losses = [s.history[-1].settings["last_loss"] for s in (trained, standing)]
    assert losses == sorted(losses)  # type: ignore[type-var]


def test_a_pruned_network_goes_on_to_int8(state: ModelState) -> None:
    pruned = PruneChannels(0.5, multiple=1).apply(state)
    quantized = QuantizeStatic(32, 32).apply(pruned)
    assert quantized.quantized is not None
    assert [entry.stage for entry in quantized.history] == ["prune_channels", "quantize_static"]


def test_a_share_of_the_work_that_cannot_go_is_refused(state: ModelState) -> None:
    with pytest.raises(BadInputError, match=r"at most 0\.\d+ of the multiply-accumulates can go"):
        PruneChannels(0.999, scope="global", multiple=1).apply(state)
