"""Removing blocks as a stage: which go, what is refused, and the way back from a manifest."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch
import torch.nn.functional as F
from known_times import use_known_times
from prunable_networks import make
from safetensors.torch import load, save
from small_networks import Net, noise, noise_task
from torch import Tensor, fx, nn

from edgedl.compress.graph.run import count_macs
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.latency.file_timer import FileTimer, Prices
from edgedl.compress.prune import prune_blocks
from edgedl.compress.prune.block_importance import BlockImportance, BlockJudge, removal_order
from edgedl.compress.prune.find_blocks import find_blocks, remove_blocks
from edgedl.compress.prune.prune_blocks import PruneBlocks
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.rebuild import rebuild
from edgedl.compress.recipe.recipe_file import parse_recipe
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.measure.estimate import Estimate

SHAPE = (3, 6, 6)
NAMES = ("a", "b", "c", "d")


def chain() -> nn.Module:
    """Four blocks; what they add is 1, 0.01, 0.2 and 0.5 of a convolution."""

    def forward(m: Net, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        for name in NAMES:
            x = x + getattr(m, name)(x)
        return m.head(x.mean((2, 3)))

    torch.manual_seed(4)
    layers = {name: nn.Conv2d(8, 8, 3, padding=1) for name in NAMES}
    with torch.no_grad():
        for factor, layer in zip((1, 0.01, 0.2, 0.5), layers.values(), strict=True):
            layer.weight *= factor
            layer.bias *= factor
    return Net(forward, stem=nn.Conv2d(3, 8, 3, padding=1), head=nn.Linear(8, 5), **layers).eval()


def state_of(module: nn.Module, *shapes: tuple[int, ...]) -> ModelState:
    subject = Subject("chain", module, noise_task(*shapes or (SHAPE,), classes=tuple("vwxyz")))
    return begin(subject)


@pytest.fixture(scope="module")
def state() -> ModelState:
    return state_of(chain())


def removed(state: ModelState) -> tuple[str, ...]:
    names = state.history[-1].settings["removed"]
    assert isinstance(names, tuple)
    return names


def test_the_block_that_adds_least_goes_first(state: ModelState) -> None:
    for importance in ("outputs", "influence"):
        stage = msgspec.convert({"stage": "prune_blocks", "importance": importance}, PruneBlocks)
        assert removed(stage.apply(state)) == ("b",)
    assert removed(PruneBlocks(2).apply(state)) == ("b", "c")


def test_the_shallower_network_is_smaller_and_what_it_says(state: ModelState) -> None:
    shallow = PruneBlocks(2).apply(state)
    settings = shallow.history[-1].settings
    one = tuple(x[:1] for x in state.subject.example_inputs())
    assert settings["macs_before"] == count_macs(state.subject.module, one)
    assert settings["macs_after"] == count_macs(shallow.subject.module, one)
    assert shallow.parent is state.subject.module
    x = state.subject.example_inputs()
    torch.testing.assert_close(shallow.graph(*x), shallow.subject.module(*x), rtol=1e-4, atol=1e-5)
    QuantizeStatic(32, 32).apply(shallow)


def test_random_is_a_control_with_a_seed(state: ModelState) -> None:
    choices = {removed(PruneBlocks(importance="random", seed=s).apply(state)) for s in range(5)}
    assert len(choices) > 1
    again = [removed(PruneBlocks(3, importance="random", seed=1).apply(state)) for _ in range(2)]
    assert again[0] == again[1]


def test_damage_is_the_divergence_of_the_answers(state: ModelState) -> None:
    module, x = state.subject.module, noise(10, *SHAPE)
    graph = export_graph(module, (x,))
    blocks = find_blocks(graph)
    judge = BlockJudge(graph, blocks, [(x[:6],), (x[6:],)], classification=True)
    silent = chain()
    with torch.no_grad():
        silent.a.weight.zero_()
        silent.a.bias.zero_()
        p, q = (net(x).double().softmax(1) for net in (module, silent))
    expected = float((p * (p / q).log()).sum(1).mean())
    assert judge.damage([blocks[0]]) == pytest.approx(expected, rel=1e-3)
    assert judge.damage([]) == pytest.approx(0, abs=1e-7)
    regression = BlockJudge(graph, blocks, [(x[:6],), (x[6:],)], classification=False)
    with torch.no_grad():
        expected = float(((module(x) - silent(x)) ** 2).mean())
    assert regression.damage([blocks[0]]) == pytest.approx(expected, rel=1e-3)


def test_influence_is_the_angle_between_what_enters_and_what_leaves(state: ModelState) -> None:
    module, x = state.subject.module, noise(10, *SHAPE)
    graph = export_graph(module, (x,))
    blocks = find_blocks(graph)
    judge = BlockJudge(graph, blocks, [(x[:6],), (x[6:],)], classification=True)
    with torch.no_grad():
        before = F.relu(module.get_submodule("stem")(x))
        after = before + module.get_submodule("a")(before)
    u, v = (y.movedim(1, -1).reshape(-1, 8).double().numpy() for y in (before, after))
    cosines = [a @ b / ((a @ a) ** 0.5 * (b @ b) ** 0.5) for a, b in zip(u, v, strict=True)]
    expected = 1 - sum(cosines) / len(cosines)
    assert judge.influences()[blocks[0]] == pytest.approx(expected, rel=1e-3)


def test_of_two_blocks_that_stand_in_for_each_other_one_stays() -> None:
    """By one answer after another: without the first, the second is all that is left."""

    class Judge(BlockJudge):
        def __init__(self) -> None:
            pass

        def damage(self, removed: object) -> float:
            names = {b.name for b in removed}  # type: ignore[attr-defined]
            return (
                1.0 * ({"a", "b"} <= names) + 0.01 * len(names & {"a", "b"}) + 0.1 * ("c" in names)
            )

    blocks = find_blocks(export_graph(chain(), (noise(2, *SHAPE),)))[:3]
    order = removal_order(blocks, "outputs", Judge(), dict.fromkeys(blocks, 1.0), 0, 2)
    assert [b.name for b in order] == ["a", "c"]


def test_named_blocks_stay(state: ModelState) -> None:
    assert removed(PruneBlocks(2, keep=("b",)).apply(state)) == ("c", "d")
    assert removed(PruneBlocks(keep=("[bcd]",)).apply(state)) == ("a",)


def only_blocks() -> nn.Module:
    return Net(lambda m, x: (x + m.a(x)).mean((2, 3)), a=nn.Conv2d(3, 3, 1)).eval()


@pytest.mark.parametrize(
    ("build", "stage", "message"),
    [
        (chain, PruneBlocks(keep=("e",)), "keep names 'e', which is no block; known: a, b, c"),
        (chain, PruneBlocks(keep=("*",)), "keep names all of them"),
        (chain, PruneBlocks(5), "5 blocks should be removed, only 4 can"),
        (lambda: make("tied")[0], PruneBlocks(), "no residual block that can be removed"),
        (only_blocks, PruneBlocks(), "no layer would be left"),
    ],
)
def test_what_cannot_be_removed(build: object, stage: PruneBlocks, message: str) -> None:
    start = state_of(build(), (3, 8, 8))  # type: ignore[operator]
    with pytest.raises(BadInputError, match=message) as caught:
        stage.apply(start)
    assert "\n" not in str(caught.value)


def test_channels_and_blocks_go_in_either_order_and_are_rebuilt(state: ModelState) -> None:
    x = state.subject.example_inputs()
    channels, blocks = PruneChannels(0.4, multiple=1), PruneBlocks(2)
    for first, then in ((channels, blocks), (blocks, channels)):
        made = then.apply(first.apply(state))
        encoded = msgspec.json.encode(made.history)
        history = msgspec.json.decode(encoded, type=tuple[HistoryEntry, ...])
        assert isinstance(made.subject.module, TracedNetwork)
        weights = load(save(made.subject.module.tensors()))
        built = rebuild(chain(), x, history, weights)
        torch.testing.assert_close(built(*x), made.subject.module(*x))


def test_another_architecture_is_not_taken_for_the_pruned_one(state: ModelState) -> None:
    history = PruneBlocks().apply(state).history
    module, inputs = make("tied")
    with pytest.raises(BadInputError, match="is it another architecture"):
        rebuild(module, inputs, history)


class KnownFiles(FileTimer):
    """Files whose every layer takes a known share of the time."""

    shares: Mapping[str, float] = {"a": 0.2, "b": 0.1, "c": 0.3, "d": 0.0}

    def __init__(self, *_: object) -> None:
        pass

    def ratios(self, graphs: Mapping[str, fx.GraphModule]) -> dict[str, Estimate]:
        found = {}
        for name, graph in graphs.items():
            left = {path.split(".")[0] for path, _ in graph.named_parameters()}
            ratio = 1 - sum(share for layer, share in self.shares.items() if layer not in left)
            found[name] = Estimate(ratio, ratio - 0.01, ratio + 0.01)
        return found

    def prices(self, graphs: Mapping[str, fx.GraphModule]) -> Prices:
        return Prices(self.ratios(graphs), 1)


def test_as_many_go_as_the_speedup_needs(
    state: ModelState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_blocks, "FileTimer", KnownFiles)
    shallow = PruneBlocks(speedup=1.3).apply(state)
    # By damage per time: b 0.1, then c 0.3; d costs nothing and stays.
    assert removed(shallow) == ("b", "c")
    settings = shallow.history[-1].settings
    assert settings["latency_ratio"] == pytest.approx(0.6)
    assert settings["price_of_a_block"] == ("a=0.20000", "b=0.10000", "c=0.30000", "d=0.00000")
    assert settings["prices_cached"] == 1
    with pytest.raises(BadInputError, match=r"2\.50 times faster at its smallest, less than 9"):
        PruneBlocks(speedup=9).apply(state)


@pytest.mark.slow
def test_a_speedup_is_reached_on_the_runtime(
    state: ModelState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_known_times(monkeypatch)
    first = PruneBlocks(speedup=1.05).apply(state).history[-1].settings
    settings = PruneBlocks(speedup=1.05).apply(state).history[-1].settings
    assert (first["prices_cached"], settings["prices_cached"]) == (0, 4)
    assert first["price_of_a_block"] == settings["price_of_a_block"]
    ratio, (_, hi) = settings["latency_ratio"], settings["latency_ratio_ci95"]  # type: ignore[misc]
    assert isinstance(ratio, float)
    assert ratio < float(hi) <= 1 / 1.05


def test_a_recipe_names_the_stage() -> None:
    text = "description: x\nstages:\n  - {stage: prune_blocks, blocks: 2, importance: influence}\n"
    assert parse_recipe(text, "x").stages == (PruneBlocks(2, importance="influence"),)


def test_a_stage_leaves_what_it_was_given(state: ModelState) -> None:
    graph = export_graph(state.subject.module, state.subject.example_inputs())
    before = str(graph.graph)
    remove_blocks(graph, ["a"])
    assert str(graph.graph) == before
    assert PruneBlocks().apply(replace(state)).graph is not state.graph


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("importance", ["random", "influence", "outputs"])
def test_as_many_go_as_shall_even_if_one_holds_others(
    importance: BlockImportance, seed: int
) -> None:
    def forward(m: Net, x: Tensor) -> Tensor:
        x = F.relu(m.stem(x))
        y = x + m.first(x)
        return m.head((x + (y + m.second(y))).mean((2, 3)))

    layers = {name: nn.Conv2d(8, 8, 3, padding=1) for name in ("first", "second")}
    net = Net(forward, stem=nn.Conv2d(3, 8, 3, padding=1), head=nn.Linear(8, 5), **layers).eval()
    stage = PruneBlocks(blocks=2, importance=importance, seed=seed, samples=8)
    assert len(removed(stage.apply(state_of(net)))) == 2
