"""Low rank as a stage: which layers, which ranks, and all that works on what is left."""

import msgspec
import pytest
import torch
from known_times import use_known_times
from safetensors.torch import load, save
from small_networks import Net, noise, noise_task
from tiny import make_subject
from torch import Tensor, nn

from edgedl.compress.distill.fine_tune import FineTune
from edgedl.compress.factorize.factorize import Factorize
from edgedl.compress.factorize.split_layers import can_split, split_layers
from edgedl.compress.graph.run import count_macs
from edgedl.compress.graph.stored_weights import stored_weights
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.rebuild import rebuild
from edgedl.compress.sparsify.sparsify import Sparsify
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.runtime.bundle.manifest import HistoryEntry
from edgedl.runtime.errors import BadInputError


@pytest.fixture
def state(float_state: ModelState) -> ModelState:
    return float_state


@pytest.mark.slow
def test_only_what_is_faster_as_two_is_split_for_a_speedup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_known_times(monkeypatch)
    torch.manual_seed(0)
    wide, narrow = nn.Linear(1024, 1024), nn.Linear(16, 16)
    net = Net(
        lambda m, x: m.last(m.narrow(m.first(x)[:, :16]).relu()),
        first=wide,
        narrow=narrow,
        last=nn.Linear(16, 4),
    )
    subject = Subject("wide", net.eval(), noise_task((1024,)))
    start = begin(subject)
    settings = Factorize(speedup=2.0, multiple=4).apply(start).history[-1].settings
    lo, hi = map(float, settings["latency_ratio_ci95"])
    assert lo <= settings["latency_ratio"] <= hi <= 0.5
    assert settings["latency_ratio_narrowest"] < 0.5
    ((path, rank),) = [line.split("=") for line in settings["ranks"]]
    assert path == "first.weight"
    assert 4 <= int(rank) < 512
    with pytest.raises(BadInputError, match=r"times faster at its smallest, less than 1000"):
        Factorize(speedup=1000.0, multiple=4).apply(start)
    with pytest.raises(BadInputError, match=r"none of 1 layers .* is certainly faster as two"):
        Factorize(speedup=1.1, multiple=4, keep=("first",)).apply(start)


class LowRank(nn.Module):
    """Two layers of rank 3, one of full rank."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 20)
        self.last = nn.Linear(20, 4, bias=False)
        with torch.no_grad():
            self.stem.weight.copy_((noise(16, 3) @ noise(3, 27, seed=1)).view(16, 3, 3, 3))
            self.head.weight.copy_(noise(20, 3) @ noise(3, 16, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x))).mean((2, 3))
        return self.last(torch.relu(self.head(x)))


def low_rank_state() -> ModelState:
    net = LowRank().eval()
    subject = Subject("low", net, make_subject().task)
    return begin(subject)


def test_all_energy_splits_what_has_a_low_rank_and_changes_nothing() -> None:
    state = low_rank_state()
    split = Factorize(energy=1.0, multiple=1).apply(state)
    found = split.history[-1].settings
    assert found["ranks"] == ("stem.weight=3", "head.weight=3")
    assert found["kept_energy"] == ("stem.weight=1", "head.weight=1")
    x = state.subject.example_inputs()
    torch.testing.assert_close(split.graph(*x), state.graph(*x), rtol=1e-4, atol=1e-5)
    # By hand: 144 places of a 27 -> 16 convolution, then 16 -> 20 and 20 -> 4.
    assert found["macs_before"] == 144 * 27 * 16 + 16 * 20 + 20 * 4
    assert found["macs_after"] == 144 * 3 * (27 + 16) + 3 * (16 + 20) + 20 * 4
    assert found["macs_after"] == count_macs(split.graph, (x[0][:1],))
    assert split.parent is state.subject.module


def test_a_ratio_is_reached_with_the_most_energy(state: ModelState) -> None:
    energies = []
    for ratio in (0.1, 0.3):
        found = Factorize(ratio=ratio, multiple=1).apply(state).history[-1].settings
        before, after = found["macs_before"], found["macs_after"]
        assert isinstance(before, int)
        assert isinstance(after, int)
        assert after <= (1 - ratio) * before
        kept = found["kept_energy"]
        assert isinstance(kept, tuple)
        energies.append(min(float(line.split("=")[1]) for line in kept))
        # Any more energy would save too little.
        more = Factorize(energy=min(1.0, energies[-1] + 2e-3), multiple=1)
        assert more.apply(state).history[-1].settings["macs_after"] > (1 - ratio) * before
    assert energies == sorted(energies, reverse=True)


def test_ranks_are_what_kernels_like() -> None:
    found = Factorize(energy=0.5, multiple=4).apply(low_rank_state()).history[-1].settings
    assert found["ranks"] == ("stem.weight=4", "head.weight=4")


def test_a_split_network_is_trained_pruned_and_quantized(state: ModelState) -> None:
    split = Factorize(energy=0.8, multiple=1, keep=("fc",)).apply(state)
    x = state.subject.example_inputs()
    tuned = FineTune(1, batch_size=16, learning_rate=0.01).apply(split)
    assert not torch.equal(tuned.graph(*x), split.graph(*x))
    pruned = PruneChannels(0.5, multiple=1).apply(tuned)
    quantized = QuantizeStatic(32, 32).apply(pruned)
    assert quantized.quantized is not None
    table = quantized.quantized.encodings.weights
    assert sum("_first" in path for path in table) == sum("_second" in path for path in table) > 0
    assert not any("fc" in path and "_first" in path for path in table)


def rebuilt(state: ModelState) -> TracedNetwork:
    """Build a state's network again from what a bundle keeps of it."""
    history = msgspec.json.decode(msgspec.json.encode(state.history), type=tuple[HistoryEntry, ...])
    assert isinstance(state.subject.module, TracedNetwork)
    weights = load(save(state.subject.module.tensors()))
    return rebuild(make_subject().module, state.subject.example_inputs(), history, weights)


def test_a_split_network_is_rebuilt_from_module_and_history(state: ModelState) -> None:
    x = state.subject.example_inputs()
    split = Factorize(energy=0.7, multiple=1).apply(state)
    torch.testing.assert_close(rebuilt(split)(*x), split.subject.module(*x))
    first = PruneChannels(0.3, multiple=1).apply(state)
    both = Factorize(energy=0.7, multiple=1).apply(first)
    last = PruneChannels(0.3, multiple=1).apply(both)
    torch.testing.assert_close(rebuilt(last)(*x), last.subject.module(*x))


def test_another_architecture_is_not_taken_for_the_split_one() -> None:
    history = Factorize(energy=1.0, multiple=1).apply(low_rank_state()).history
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(BadInputError, match="is it another architecture"):
        rebuild(other, (torch.zeros(2, 3, 8, 8),), history)
    narrow = LowRank()
    narrow.stem = nn.Conv2d(3, 2, 3, padding=1)
    narrow.norm, narrow.head = nn.BatchNorm2d(2), nn.Linear(2, 20)
    with pytest.raises(BadInputError, match="is it of another width"):
        rebuild(narrow, (torch.zeros(2, 3, 8, 8),), history)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Factorize(keep=("nothing",)), "no layer is called 'nothing'"),
        (Factorize(energy=1.0, multiple=1), "no layer can be split"),
        (Factorize(ratio=0.99, multiple=1), "at most 0"),
        (Factorize(keep=("*",)), "no layer can be split"),
    ],
)
def test_what_cannot_be_split(state: ModelState, stage: Factorize, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        stage.apply(state)


def test_an_energy_and_a_ratio_are_two_wishes() -> None:
    with pytest.raises(BadInputError, match="not energy and ratio: leave all but one out"):
        Factorize(energy=0.9, ratio=0.5)


def test_the_zeros_of_a_sparse_network_are_not_lost(state: ModelState) -> None:
    with pytest.raises(BadInputError, match="the recipe needs it before sparsify"):
        Factorize().apply(Sparsify().apply(state))


def test_one_dimension_is_split_and_a_table_of_words_is_not() -> None:
    def forward(m: Net, ids: Tensor) -> Tensor:
        words = m.words(ids)
        y = m.inner(words.transpose(1, 2)).relu().transpose(1, 2)
        return nn.functional.linear(m.outer(y), m.words.weight)

    layers = {"words": nn.Embedding(9, 8), "inner": nn.Conv1d(8, 6, 3, 2), "outer": nn.Linear(6, 8)}
    net = Net(forward, **layers).eval()
    ids = torch.arange(14).view(2, 7) % 9
    graph = export_graph(net, (ids,))
    assert [(w.path, can_split(w)) for w in stored_weights(graph)] == [
        ("inner.weight", True),
        ("outer.weight", True),
        ("words.weight", False),
    ]
    split_layers(graph, {"inner.weight": 6, "outer.weight": 6})
    torch.testing.assert_close(graph(ids), net(ids), rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInputError, match="no such layer"):
        split_layers(graph, {"words.weight": 2})
