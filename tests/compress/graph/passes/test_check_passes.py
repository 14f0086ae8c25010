"""The check of passes: what is wrong is found, and named."""

import pytest
import torch.nn.functional as F
from small_networks import Net, noise
from torch import fx, nn

from edgedl.compress.graph.edit import insert_shaped_call
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.passes import canonicalize
from edgedl.compress.graph.passes.check_passes import SWITCH, PassError
from edgedl.compress.graph.passes.graph_pass import Order, Pass, in_order
from edgedl.compress.graph.trace import export_graph, trace


class Doubled(Pass):
    """Wrong: ``relu(x)`` becomes ``mul(relu(x), 1.5)``."""

    operators = frozenset({aten.relu.default})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        relu = insert_shaped_call(module, node, aten.relu.default, node.args[0])
        return insert_shaped_call(module, node, aten.mul.Tensor, relu, self.factor)

    factor = 1.5


class Repeated(Doubled):
    """Right, but it finds its own result again."""

    factor = 1.0


class Untidy(Pass):
    """Wrong: a node reads what comes behind it."""

    operators = frozenset({aten.relu.default})

    def rewrite(self, module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
        node.update_arg(0, next(iter(node.users)))
        return node


NET = Net(lambda net, x: F.relu(net.layer(x)).flatten(1) + 1, layer=nn.Conv2d(3, 4, 3))
X = noise(2, 3, 5, 5)


def replaced(monkeypatch: pytest.MonkeyPatch, step: Pass) -> None:
    order: Order = ((step,), *canonicalize.ORDER)
    monkeypatch.setattr(canonicalize, "ORDER", order)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Doubled(), r"Doubled at 'relu' changes .*: 'flatten' differs first, by \d"),
        (Repeated(), "Repeated leaves 'relu_default', which is still to be rewritten"),
        (Untidy(), "Untidy at 'relu' leaves a graph that does not run"),
    ],
)
def test_a_wrong_pass_is_named(monkeypatch: pytest.MonkeyPatch, step: Pass, message: str) -> None:
    replaced(monkeypatch, step)
    with pytest.raises(PassError, match=message):
        trace(NET.eval(), (X,))


def test_what_a_wrong_pass_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Renamed(Doubled):
        takes_name = True

    replaced(monkeypatch, Renamed())
    with pytest.raises(PassError, match="'relu', which Renamed made, differs first"):
        trace(NET.eval(), (X,))


def test_nothing_is_checked_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH)
    replaced(monkeypatch, Repeated())
    trace(NET.eval(), (X,))
    with pytest.raises(PassError, match="Repeated"):
        canonicalize.canonicalize(export_graph(NET, (X,)), check=(X,))


def test_a_difference_of_one_rounding_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rounded(Doubled):
        factor = 1 + 2e-6
        operators = frozenset({aten.relu.default})

        def ensures(self, module: fx.GraphModule) -> list[str]:
            return []

    replaced(monkeypatch, Rounded())
    trace(NET.eval(), (X,))


def test_a_pass_stands_behind_those_that_it_requires() -> None:
    class Later(Doubled):
        requires = (Doubled,)

    assert in_order((Doubled(), Later()))
    with pytest.raises(ValueError, match="Later must stand behind Doubled"):
        in_order((Later(), Doubled()))
