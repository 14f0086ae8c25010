"""A stage after which the network answers otherwise is left out, and the recipe goes on."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from listening import notes_to
from small_networks import Net, noise
from tiny import make_subject
from torch import fx, nn

from edgedl.compress.graph.trace import trace
from edgedl.compress.pipeline import compress
from edgedl.compress.prune.prune_channels import PruneChannels
from edgedl.compress.quantize.corrections.round_weights import RoundWeights
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.apply_recipe import StageRunner
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState, StageUndoneError, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT
from edgedl.runtime.progress import SILENT
from edgedl.tools.jobs.job import Job
from edgedl.tools.jobs.plan import plan

X = noise(2, 3, 12, 12)


def graph_of(forward: Callable[..., object], batch: int = 2) -> fx.GraphModule:
    """Return a graph; of another batch size than any, if it computes only that one."""
    net = Net(forward, head=nn.Linear(432, 4)).eval()
    if batch == 2:
        return trace(net, (X,))
    return fx.symbolic_trace(net)


class Replaces(Stage, frozen=True, tag="replaces"):
    """Puts another graph in the network's place."""

    way: str = "same"

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        return replace(state, graph=WAYS[self.way]()), {}


class Forgets(QuantizeStatic, frozen=True, tag="forgets"):
    """Quantizes a network, and loses one of its outputs."""

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        done, found = super().change(state)
        assert done.quantized is not None
        return replace(done, quantized=replace(done.quantized, graph=WAYS["narrower"]())), found


WAYS: dict[str, Callable[[], fx.GraphModule]] = {
    "same": lambda: graph_of(lambda m, x: 2 * m.head(x.flatten(1))),
    "narrower": lambda: graph_of(lambda m, x: m.head(x.flatten(1))[:, 1:]),
    "another": lambda: graph_of(lambda m, x: (m.head(x.flatten(1)), x)),
    "infinite": lambda: graph_of(lambda m, x: m.head(x.flatten(1)) / 0.0, 1),
    "wide": lambda: graph_of(lambda m, x: m.head(x.flatten(1)).double(), 1),
    "two": lambda: graph_of(lambda m, x: m.head(x.reshape(2, 432)), 1),
}


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("narrower", r"output 0 .* is torch.float32 \[2, 3\] .*, not torch.float32 \[2, 4\]"),
        ("another", "returns 2 outputs, not 1"),
        ("infinite", "output 0 of the network that is left is not finite"),
        ("wide", "is torch.float64"),
        ("two", r"does not take inputs \[3, 3, 12, 12\]"),
    ],
)
def test_another_interface_is_refused(way: str, reason: str) -> None:
    state = begin(make_subject())
    with pytest.raises(StageUndoneError, match=reason):
        Replaces(way).apply(state)
    assert Replaces("same").apply(state).stages


class Series(nn.Module):
    """Answers every step of a series."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.wide(x).relu())
        return y


class FixesLength(Stage, frozen=True, tag="fixes_length"):
    """Cuts what is longer than the example inputs, and fills what is shorter."""

    def change(self, state: ModelState) -> tuple[ModelState, Found]:
        length = state.subject.example_inputs()[0].shape[1]
        net = state.subject.module
        return replace(
            state,
            graph=fx.symbolic_trace(Net(lambda m, x: m.net(x.expand(-1, length, -1)), net=net)),
        ), {}


def test_another_length_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = replace(make_subject(), module=Series().eval(), free_axes=(0, 1))
    x = noise(2, 6, 3)
    monkeypatch.setattr(type(subject), "example_inputs", lambda self: (x,))
    with pytest.raises(StageUndoneError, match=r"does not take inputs \[2, 3, 3\]"):
        FixesLength().apply(begin(subject))


@pytest.mark.slow
def test_the_recipe_goes_on_without_it(tmp_path) -> None:
    said: list[str] = []
    made = compress(
        make_subject(),
        Recipe("", (PruneChannels(0.5, multiple=1), Replaces("narrower"), QuantizeStatic(32, 32))),
        (ORT,),
        tmp_path,
        progress=notes_to(said.append),
    )
    assert [entry.stage for entry in made.bundle.manifest.history] == [
        "prune_channels",
        "quantize_static",
    ]
    note = next(w for w in made.warnings if "is skipped" in w)
    assert note.startswith("the stage replaces is skipped: output 0 of the network that is left")
    assert note in said


def test_what_needs_the_stage_is_left_out_too() -> None:
    state = StageRunner(None, None).run((Forgets(32, 32), RoundWeights()), begin(make_subject()))
    assert state.stages == ()
    first, second = state.undone
    assert first.startswith("the stage forgets is skipped: output 0")
    assert second.startswith("the stage round_weights is skipped: the stage round_weights works on")


def neighbours() -> Subject:
    """Return a network with attention by neighbours among all channels there are."""

    def forward(m: Net, x: torch.Tensor) -> torch.Tensor:
        y = m.wide(x).relu()
        scale = m.over(y.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2)
        return m.head(y * scale.unsqueeze(-1)).mean((2, 3))

    net = Net(
        forward,
        wide=nn.Conv2d(3, 16, 1),
        over=nn.Conv1d(1, 1, 3, padding=1),
        head=nn.Conv2d(16, 4, 1),
    )
    return replace(make_subject(), module=net.eval())


def test_channels_that_mean_places_stay_and_the_job_goes_on() -> None:
    state = begin(neighbours())
    after = StageRunner(None, None).run((PruneChannels(0.5, multiple=1),), state)
    assert after.graph is state.graph
    assert after.undone == (
        "the stage prune_channels is skipped: there is nothing to prune: 'over' slides over it",
    )


def test_a_plan_says_what_will_be_left_out() -> None:
    recipe = Recipe("", (PruneChannels(0.5, multiple=1), QuantizeStatic(32, 32)))
    first, second = plan(Job(neighbours(), (ORT,), recipe), None, SILENT)
    assert str(first).startswith("prune_channels (ratio=0.5, multiple=1): skipped, there is noth")
    assert second.left_out is None
