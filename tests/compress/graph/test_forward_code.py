"""What Python code does in forward: it is traced, or what to write instead is said."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_networks import Net, noise
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edgedl.compress.graph.edit import input_nodes, output_nodes
from edgedl.compress.graph.layers import layer_name
from edgedl.compress.graph.trace import TraceError, export_graph, trace
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.errors import EdgedlError

X = noise(3, 8)


class Star(Net):
    """The same with any arguments."""

    def forward(self, *xs: Tensor, **more: Any) -> Any:  # type: ignore[override]
        return self._forward(self, *xs, **more)


class OneAndStar(Net):
    def forward(self, x: Tensor, *xs: Tensor) -> Any:  # type: ignore[override]
        return self._forward(self, x, *xs)


class WithFactor(Net):
    def forward(self, x: Tensor, *, factor: float) -> Any:  # type: ignore[override]
        return self._forward(self, x) * factor


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def net(forward: Callable[..., Any], kind: type[Net] = Net, **parts: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(forward, net=layers(), **parts).eval()


@dataclass
class Found:
    scores: Tensor
    loss: Tensor | None = None


def under(context: Callable[[], Any]) -> Callable[..., Any]:
    def forward(s: Any, x: Tensor) -> Tensor:
        with context():
            y = s.net(x)
        return y * 2

    return forward


def nested(s: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        with torch.autocast("cpu", enabled=False):
            y = s.net[0](x)
        z, w = torch.relu(y), y.abs()
    return s.net[2](z - w)


def scales_its_input(s: Any, x: Tensor) -> Tensor:
    return s.net(x.mul_(2))


def clears_a_column(s: Any, x: Tensor) -> Tensor:
    x[:, 0] = 0
    return s.net(x)


def counts(s: Any, x: Tensor) -> Tensor:
    s.calls += 1
    return s.net(x)


def counts_a_part(s: Any, x: Tensor) -> Tensor:
    s.calls[0] += 1
    return s.net(x)


def sizes(s: Any, x: Tensor) -> Tensor:
    steps = torch.arange(x.shape[1], dtype=x.dtype) + torch.full((x.shape[0], 8), 0.5)
    return s.net(x + steps) @ torch.eye(3)


@pytest.mark.parametrize(
    ("module", "outputs"),
    [
        (net(under(torch.no_grad)), 1),
        (net(under(torch.enable_grad)), 1),
        (net(under(torch.inference_mode)), 1),
        (net(under(lambda: torch.autocast("cpu", enabled=False))), 1),
        (net(under(lambda: torch.autocast("cuda", enabled=False))), 1),
        (net(nested), 1),
        (net(lambda s, x: checkpoint(s.net, x, use_reentrant=True)), 1),
        (net(lambda s, x: checkpoint(s.net, x, use_reentrant=False)), 1),
        (net(lambda s, x: {"scores": s.net(x), "loss": None, "hidden": x * 2}), 2),
        (net(lambda s, x: Found(s.net(x))), 1),
        (net(lambda s, x: (s.net(x), [x * 2, (None, x * 3)])), 3),
        (net(lambda s, x: (lambda y: (y, y))(s.net(x))), 2),
        (net(lambda s, x: (s.net(x), x)), 2),
        (net(lambda s, *xs: s.net(xs[0]), Star), 1),
        (net(lambda s, x, *xs: s.net(x), OneAndStar), 1),
        (net(lambda s, x: s.inside(x), inside=nn.DataParallel(layers())), 1),
        (net(lambda s, x: s.inside(x), inside=torch.compile(layers())), 1),
        (net(scales_its_input), 1),
        (net(clears_a_column), 1),
        (net(counts, calls=nn.Buffer(torch.zeros(()))), 1),
        (net(counts_a_part, calls=nn.Buffer(torch.zeros(2))), 1),
        (net(sizes), 1),
    ],
)
def test_the_graph_computes_what_forward_does(module: nn.Module, outputs: int) -> None:
    before = {name: x.clone() for name, x in module.state_dict().items()}
    graph, exported = trace(module, (X.clone(),)), export_graph(module, (X.clone(),))
    assert all(torch.equal(before[name], x) for name, x in module.state_dict().items())
    assert "forward" not in vars(module)
    assert len(output_nodes(graph)) == outputs
    fresh = noise(5, 8, seed=9)
    with torch.no_grad():
        expected = as_tuple(module(fresh.clone()))
        for made in (graph, exported):
            given = fresh.clone()
            # Twice: the graph keeps nothing from call to call, and writes into no input.
            for _ in range(2):
                for a, b in zip(expected, as_tuple(made(given)), strict=True):
                    torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
            assert torch.equal(given, fresh)


def test_blocks_without_gradients_leave_no_inner_graph() -> None:
    graph = trace(net(nested), (X,))
    calls = [n.target for n in graph.graph.nodes if n.op == "call_function"]
    assert all(isinstance(target, torch._ops.OpOverload) for target in calls)
    modules = {layer_name(n) for n in graph.graph.nodes}
    assert {"net.0", "net.2"} <= modules


def test_outputs_are_called_as_their_keys_and_fields() -> None:
    for forward in (
        lambda s, x: {"scores": s.net(x), "class": x * 2, "not a name": x * 3},
        lambda s, x: Found(s.net(x), x * 2),
    ):
        names = [n.name for n in output_nodes(trace(net(forward), (X,)))]
        assert names[0] == "scores"
        assert "not a name" not in names


@pytest.mark.parametrize("kind", [Star, OneAndStar])
def test_several_inputs_of_star_args_keep_their_order(kind: type[Net]) -> None:
    graph = trace(net(lambda s, *xs: s.net(xs[0] - 2 * xs[1]), kind), (X, X))
    assert len(input_nodes(graph)) == 2
    first, second = noise(4, 8, seed=1), noise(4, 8, seed=2)
    expected = net(lambda s, x: s.net(x))(first - 2 * second)
    torch.testing.assert_close(as_tuple(graph(first, second))[0], expected, rtol=1e-4, atol=1e-5)


def remembers(s: Any, x: Tensor) -> Tensor:
    s.state.mul_(0.5).add_(x.mean())
    return s.net(x) + s.state


def remembers_by_itself(s: Any, x: Tensor) -> Tensor:
    s.last = getattr(s, "last", 0) + x.mean()
    return s.net(x) + s.last


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (net(lambda s, x: (s.net(x), 0.5)), r"forward's result\[1\] is a float"),
        (net(lambda s, x: {"y": s.net(x), "n": x.shape[0]}), r"forward's result\['n'\] is a"),
        (net(lambda s, x: (s.net(x), x.double())), r"is torch.float64: .* return y.float\(\)"),
        (net(lambda s, x: torch.fft.fft(x)), "is torch.complex64: .*view_as_real"),
        (net(under(lambda: torch.autocast("cpu", torch.bfloat16))), "torch.autocast in torch.bfl"),
        (
            net(lambda s, x: torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v * 3, (x,))),
            "uses torch's 'cond': .*torch.where",
        ),
        (net(lambda s, x: torch.vmap(s.net)(x)), "uses torch.vmap"),
        (torch.jit.script(layers()), "the module 'Sequential' is TorchScript"),
        (torch.jit.trace(layers(), X), "the module 'Sequential' is TorchScript"),
        (net(lambda s, x: s.inside(x), inside=torch.jit.script(layers())), "its part 'inside' is"),
        (net(remembers, state=nn.Buffer(torch.zeros(3))), "differently the second time"),
        (net(remembers_by_itself), "differently the second time"),
        (net(lambda s, x: s.net(x), WithFactor), "required .*'factor'"),
    ],
)
def test_what_no_file_can_do_is_said_in_one_line(module: nn.Module, said: str) -> None:
    with pytest.raises(EdgedlError, match=said) as refused:
        trace(module, (X,))
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.exit_code == TraceError.exit_code == 2
