"""Devices are found or refused in one line; what is moved stays whole. Meta stands for a GPU."""

from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

from edgedl.compress import device as devices
from edgedl.compress.device import CPU, device_of, find_device, on_device, to_device
from edgedl.compress.distill.inner_values import with_inner_values
from edgedl.compress.graph.trace import export_graph
from edgedl.compress.graph.traced_network import TracedNetwork
from edgedl.runtime.errors import BadInputError

META = torch.device("meta")
Pair = namedtuple("Pair", ("labels", "teacher"))


class Net(nn.Module):
    """Makes a tensor of its own, and has a buffer that a batch changes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.bn = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.fc(x)) + torch.zeros(x.shape[0], 4)


def traced() -> TracedNetwork:
    return TracedNetwork(export_graph(Net().eval(), (torch.ones(2, 3),)))


@pytest.fixture
def meta_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take meta for a device; it holds no values, so nothing can come back from it."""
    monkeypatch.setattr(devices, "check_device", lambda device: None)


def test_the_cpu_is_always_here() -> None:
    assert find_device("cpu") == CPU


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "there is no device 'gpu'"),
        ("", "there is no device ''"),
        ("meta", "meta is not available here: "),
        pytest.param(
            "cuda",
            "cuda is not available here: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
        pytest.param(
            "mps",
            "mps is not available here: ",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one"),
        ),
    ],
)
def test_a_device_that_is_unknown_or_absent_is_refused_in_one_line(refused, name, words) -> None:
    with refused(BadInputError, words):
        find_device(name)


def test_a_device_that_is_absent_is_refused_before_anything_moves() -> None:
    module = Net()
    weight = module.fc.weight
    with pytest.raises(BadInputError, match="not available here"), on_device(META, module):
        raise AssertionError("the block must not run")
    assert module.fc.weight is weight
    assert weight.device == CPU


def test_batches_move_with_all_that_is_in_them() -> None:
    batch = ((torch.ones(2), torch.ones(3)), Pair(torch.ones(2), (torch.ones(1),)), [1, "a"])
    moved = to_device(batch, META)
    assert [x.device for x in (*moved[0], moved[1].labels, *moved[1].teacher)] == [META] * 4
    assert isinstance(moved[1], Pair)
    assert moved[2] == [1, "a"]
    here = to_device(batch, CPU)
    assert here[0][0] is batch[0][0]


def test_what_two_networks_share_they_share_on_the_device(meta_is_here: None) -> None:
    network = traced()
    student = with_inner_values(network, ("fc",))
    devices._move((student, network), META)
    for path in ("bn.running_mean", "fc.weight"):
        own, shared = (n.graph.get_submodule(path.split(".")[0]) for n in (network, student))
        a, b = (getattr(part, path.split(".")[1]) for part in (own, shared))
        assert a.device == b.device == META
        # Meta tensors have no memory to compare: a buffer is one tensor, a parameter one storage.
        assert a is b or a.untyped_storage()._cdata == b.untyped_storage()._cdata
    assert device_of(student) == META


def test_a_traced_graph_makes_its_tensors_on_the_device_it_is_moved_to(meta_is_here: None) -> None:
    network = traced()
    devices._move((network,), META)
    assert "device = device(type='meta')" in network.graph.code
    assert network(torch.ones(2, 3, device=META)).device == META


def test_it_comes_back_to_the_cpu_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = []
    monkeypatch.setattr(devices, "check_device", lambda device: None)
    monkeypatch.setattr(devices, "_move", lambda modules, device: moves.append(device))
    with pytest.raises(ZeroDivisionError), on_device(META, Net()):
        raise ZeroDivisionError
    assert moves == [META, CPU]


def test_on_the_cpu_nothing_is_touched() -> None:
    network = traced()
    code, tensors = network.graph.code, list(network.parameters())
    with on_device(CPU, network):
        assert all(a is b for a, b in zip(tensors, network.parameters(), strict=True))
    assert network.graph.code == code


def test_a_module_without_tensors_is_on_the_cpu() -> None:
    assert device_of(nn.ReLU()) == CPU
