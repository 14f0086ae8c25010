"""A runtime's description says which operators it computes in integers."""

from pathlib import Path

import msgspec
import pytest
import torch
import torch.nn.functional as F
import yaml
from small_networks import Net, noise
from torch import nn

from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.placement import float_islands
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import ROWS, is_quantizable
from edgedl.compress.graph.trace import trace
from edgedl.compress.targets import described as module
from edgedl.compress.targets.integer_kernels import Int16Kernels, check_rows
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import TARGETS, load_target, target_names
from edgedl.runtime.errors import BadInputError


@pytest.mark.parametrize("name", target_names())
def test_descriptions_name_rows_alone(name: str) -> None:
    target = load_target(name)
    assert target.integer_operators <= {row.name for row in ROWS}
    without = [n for names in msgspec.structs.astuple(target.int16) for n in names]
    assert set(without) <= target.integer_operators


def test_every_integer_row_has_a_runtime() -> None:
    named = frozenset().union(*(target.integer_operators for target in TARGETS))
    assert all(row.name in named for row in ROWS if row.ranges.name != "FLOAT")


@pytest.mark.parametrize(
    ("name", "near"), [("conv2", "conv2d"), ("lstm", "sum"), ("soft_max", "softmax")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(BadInputError) as refused:
        check_rows(["conv2d", name], "the target x")
    assert str(refused.value) == (
        f"the target x: no operator '{name}' computes in integers, did you mean '{near}'?"
    )


def test_descriptions_are_checked_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = yaml.safe_load((Path(module.__file__).parent / "ort.yaml").read_text())
    said["integer_operators"].append("convv2d")
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(said))
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    with pytest.raises(BadInputError, match=r"other: no operator 'convv2d' .* 'conv2d'"):
        load_target("other")


def network() -> nn.Module:
    return Net(
        lambda m, x: m.second(F.gelu(m.first(x))),
        first=nn.Conv2d(3, 4, 1),
        second=nn.Conv2d(4, 2, 1),
    ).eval()


@pytest.mark.parametrize("target", [ORT, TFLITE], ids=lambda target: target.name)
def test_what_a_runtime_does_not_name_it_computes_in_float(target) -> None:
    x = noise(4, 3, 5, 5)
    graph = trace(network(), (x,))
    encodings = calibrate(graph, [(x,)], "minmax")
    assert not float_islands(graph.graph, encodings, target)
    gelu = target.integer_operators - {"gelu"}
    without = msgspec.structs.replace(target, integer_operators=gelu)
    (island,) = float_islands(graph.graph, encodings, without)
    assert island.target is aten.gelu.default
    # Its result is read by integers, and quantized for them; float32 goes from pair to GELU.
    emitted = emit(graph, encodings, without)
    named = emit(graph, encodings, target)
    pairs = [
        sum(n.target is torch.ops.quantized_decomposed.quantize_per_tensor.default for n in g)
        for g in (emitted.graph.nodes, named.graph.nodes)
    ]
    assert pairs[0] == pairs[1]
    assert (emitted(x) - named(x)).abs().max() < 0.1


def test_tensorrt_reads_pairs_in_layers_and_sums() -> None:
    assert TENSORRT.integer_operators == {"conv1d", "conv2d", "linear", "add"}


def test_kernels_with_16_bits() -> None:
    graph = trace(network(), (noise(2, 3, 5, 5),)).graph
    (gelu,) = graph.find_nodes(op="call_function", target=aten.gelu.default)
    assert is_quantizable(gelu)
    assert not TFLITE.int16.has(gelu)
    assert Int16Kernels().has(gelu)
    x = graph.find_nodes(op="placeholder")[0]
    pools = [
        graph.call_function(aten.max_pool2d.default, (x, [2, 2], [2, 2]), {"padding": [p, p]})
        for p in (0, 1)
    ]
    assert [TFLITE.int16.has(pool) for pool in pools] == [True, False]
    sums = [graph.call_function(aten.add.Tensor, (x, other)) for other in (x, 1.0)]
    assert [TFLITE.int16.has(node) for node in sums] == [True, False]
