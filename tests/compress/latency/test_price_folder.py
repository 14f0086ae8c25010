"""Prices on disk: what they depend on, and that a damaged one is measured again."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from prunable_networks import make
from small_networks import noise
from torch import fx, nn

from edgedl.compress.graph.trace import export_graph
from edgedl.compress.latency.file_timer import FileTimer
from edgedl.compress.latency.price_folder import PriceFolder, price_folder, price_key
from edgedl.compress.state import ModelState
from edgedl.compress.targets.named import ORT
from edgedl.runtime.measure.amx import REFUSED
from edgedl.runtime.measure.estimate import Estimate
from edgedl.runtime.precision import FLOAT32


def graph_of(width: int) -> fx.GraphModule:
    net = nn.Sequential(nn.Conv2d(3, width, 1), nn.ReLU(), nn.Conv2d(width, 2, 1)).eval()
    return export_graph(net, (noise(2, 3, 4, 4),))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class CountingTimer(FileTimer):
    """Says of every graph how many parameters it has, as if that were its latency."""

    timed: tuple[str, ...] = ()

    def ratios(self, graphs: Mapping[str, fx.GraphModule]) -> dict[str, Estimate]:
        self.timed = tuple(graphs)
        sizes = {n: sum(p.numel() for p in g.parameters()) / 100 for n, g in graphs.items()}
        return {n: Estimate(s, s, s) for n, s in sizes.items()}


def test_what_was_measured_once_is_read(float_state: ModelState, tmp_path: Path) -> None:
    whole, wide, narrow = graph_of(8), graph_of(6), graph_of(4)
    first = CountingTimer(float_state, whole, ORT, FLOAT32)
    found = first.prices({"narrow": narrow})
    assert (first.timed, found.cached) == (("narrow",), 0)
    second = CountingTimer(float_state, graph_of(8), ORT, FLOAT32)
    again = second.prices({"wide": wide, "as narrow": graph_of(4)})
    assert (second.timed, again.cached) == (("wide",), 1)
    assert again.ratios["as narrow"] == found.ratios["narrow"]
    assert list(again.ratios) == ["wide", "as narrow"]
    for file in (tmp_path / "edgedl" / "prices").iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    third = CountingTimer(float_state, whole, ORT, FLOAT32)
    assert third.prices({"narrow": narrow, "wide": wide}).cached == 0
    assert third.timed == ("narrow", "wide")


def test_a_key_is_of_structure_runtime_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, narrow = graph_of(8), graph_of(4)
    own = price_key(whole, narrow, "ort", "float32")
    with torch.no_grad():
        whole.get_parameter("0.weight").add_(1)
    assert price_key(whole, narrow, "ort", "float32") == own
    others = {
        price_key(graph_of(9), narrow, "ort", "float32"),
        price_key(whole, graph_of(5), "ort", "float32"),
        price_key(whole, narrow, "tflite", "float32"),
        price_key(whole, narrow, "ort", "int8"),
        price_key(export_graph(*make("tied")), narrow, "ort", "float32"),
    }
    monkeypatch.setattr(
        "edgedl.runtime.measure.device._cpu", lambda: ("another", {"avx2", "amx_int8"})
    )
    others.add(price_key(whole, narrow, "ort", "float32"))
    monkeypatch.setenv(REFUSED, "1")
    others.add(price_key(whole, narrow, "ort", "float32"))
    assert own not in others
    assert len(others) == 7


@pytest.mark.parametrize("content", [b"", b"{}", b'{"value":-1,"lo":-1,"hi":-1}', b"\xff"])
def test_a_damaged_file_is_no_price(tmp_path: Path, content: bytes) -> None:
    folder = PriceFolder(tmp_path / "new")
    assert folder.read("x") is None
    folder.write("x", Estimate(0.5, 0.4, 0.6))
    assert folder.read("x") == Estimate(0.5, 0.4, 0.6)
    (tmp_path / "new" / "x.json").write_bytes(content)
    assert folder.read("x") is None


def test_the_folder_is_in_the_users_cache(tmp_path: Path) -> None:
    assert price_folder(None).path == tmp_path / "edgedl" / "prices"
    nowhere = PriceFolder(None)
    nowhere.write("x", Estimate(0.5, 0.4, 0.6))
    assert nowhere.read("x") is None


def test_old_prices_are_removed(tmp_path: Path) -> None:
    folder = PriceFolder(tmp_path / "prices")
    for key in ("old", "new"):
        folder.write(key, Estimate(0.5, 0.4, 0.6))
    os.utime(tmp_path / "prices" / "old.json", (1000, 1000))
    assert folder.prune(1000) == 1
    assert (folder.read("old"), folder.read("new")) == (None, Estimate(0.5, 0.4, 0.6))
    assert PriceFolder(None).prune(1000) == 0
