"""TFLite files with int16 activations: the table's scales, the emitted graph's numbers."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from small_networks import Net, network, noise
from torch import Tensor, fx, nn

from edgedl.compress.encodings.affine import affine_for, grid_of
from edgedl.compress.encodings.calibrate import calibrate
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.encodings import Encodings, Range
from edgedl.compress.encodings.placement import float_islands
from edgedl.compress.encodings.simulate import Simulation
from edgedl.compress.export.tflite.int16 import to_tflite_int16, widen_biases
from edgedl.compress.export.tflite.interface import describe_tflite
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.memory_layout import in_fast_layout
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.static import kept_float
from edgedl.compress.targets.named import TFLITE
from edgedl.runtime.backends.tflite import LiteRTBackend
from edgedl.runtime.bundle.manifest import Artifact
from edgedl.runtime.tensors import decode, encode

SAMPLES = 8


def _without_kernels() -> nn.Module:
    """Build what TFLite has no int16 form for: GELU, Hardswish, constants, concat, padded pools."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.hardswish(F.gelu(net.a(x))) * 0.5 + net.position
        x = F.max_pool2d(torch.cat([x, net.b(x)], 1), 3, 2, 1)
        return net.c(x)

    return Net(
        forward,
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 2, 1),
        c=nn.Conv2d(6, 3, 1),
        position=nn.Parameter(torch.randn(4, 6, 6)),
    )


@dataclass(frozen=True)
class Wide:
    """A network with int16 activations, the graph emitted of it, and the file, before and after."""

    graph: fx.GraphModule
    encodings: Encodings
    inputs: tuple[Tensor, ...]
    emitted: fx.GraphModule
    narrow: bytes
    file: bytes


@cache
def wide(name: str) -> Wide:
    torch.manual_seed(2)
    if name == "without_kernels":
        module, inputs = _without_kernels().eval(), (noise(32, 3, 6, 6),)
        graph = trace(module, inputs)
    else:
        graph, inputs = network(name).graph, network(name).inputs
    kept = kept_float(graph, (), "int8_int16")
    table = calibrate(graph, [inputs], "mse", precision="int8_int16")
    table = Encodings(table.activations, table.weights, kept, precision="int8_int16")
    emitted = emit(graph, table, TFLITE)
    if float_islands(graph.graph, table):
        return Wide(
            graph, table, inputs, emitted, b"", to_tflite_int16(emitted, inputs, TFLITE, True)
        )
    narrow = to_tflite(emitted, inputs, True)
    return Wide(graph, table, inputs, emitted, narrow, widen_biases(narrow))


def run(file: bytes, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Run samples one by one through the runtime of devices, with its encoding of inputs."""
    specs, outputs = describe_tflite(file)
    artifact = Artifact("tflite-int8_int16", "tflite", "int8_int16", "x", specs, outputs, (1.0,))
    session = LiteRTBackend().load(file, artifact, 1)
    rows = []
    for i in range(SAMPLES):
        feed = [encode(x[i : i + 1].numpy(), s) for x, s in zip(inputs, specs, strict=True)]
        rows.append([decode(y, s) for y, s in zip(session.run(feed), outputs, strict=True)])
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def decibels(exact: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_heads", "gated", "without_kernels"])
def test_the_file_computes_what_the_emitted_graph_computes(name: str) -> None:
    net = wide(name)
    expected = run_graph(net.emitted, tuple(x[:SAMPLES].numpy() for x in net.inputs))
    outputs = next(n for n in net.graph.graph.nodes if n.op == "output").all_input_nodes
    for a, b, node in zip(run(net.file, net.inputs), expected, outputs, strict=True):
        step = grid_of(net.encodings, node.name, TFLITE).scale
        assert np.abs(a - b).max() <= 4.001 * step
        assert decibels(b, a) > 65


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_heads", "gated"])
def test_sixteen_bits_are_nearer_to_float_than_eight(name: str) -> None:
    eight, net = network(name), wide(name)
    for exact, a8, a16 in zip(
        eight.outputs(eight.graph),
        eight.outputs(eight.emitted(TFLITE)),
        eight.outputs(net.emitted),
        strict=True,
    ):
        assert decibels(exact, a16) > decibels(exact, a8) + 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_heads", "gated"])
def test_activations_are_int16_on_the_tables_grids_and_biases_int64(name: str) -> None:
    net = wide(name)
    interpreter = Interpreter(model_content=net.file)
    interpreter.allocate_tensors()
    tensors = interpreter.get_tensor_details()
    assert {t["dtype"].__name__ for t in tensors} <= {"int16", "int8", "int64", "int32"}
    # Memory that a kernel works in has no step.
    found = {t["quantization"] for t in tensors if t["dtype"] is np.int16 and t["quantization"][0]}
    table = net.encodings.activations
    known = {(affine_for(r, TFLITE, 16).scale, 0) for r in table.values()}
    assert len(found) > 3
    assert found <= known
    biases = [t for t in tensors if t["dtype"] is np.int64]
    weights = [t for t in tensors if t["dtype"] is np.int8]
    assert len(biases) == len(weights) == len(net.encodings.weights)
    scales = {t["quantization_parameters"]["scales"].tobytes() for t in weights}
    assert scales == {(w / 127).numpy().tobytes() for w in net.encodings.weights.values()}


@pytest.mark.slow
def test_only_what_has_no_kernel_computes_in_float() -> None:
    net = wide("without_kernels")
    kept = {n for n in net.encodings.float_nodes}
    assert kept == {"gelu", "hardswish", "mul", "add", "cat", "max_pool2d"}
    interpreter = Interpreter(model_content=net.file)
    interpreter.allocate_tensors()
    tensors = {t["index"]: t["dtype"] for t in interpreter.get_tensor_details()}
    for operator in interpreter._get_ops_details():
        if operator["op_name"] == "CONV_2D":
            assert [tensors[i] for i in operator["inputs"]] == [np.int16, np.int8, np.int64]


@pytest.mark.slow
def test_without_wide_biases_the_runtime_computes_nonsense_or_refuses() -> None:
    """The reason for ``widen_biases``; should this fail one day, it can go."""
    net = wide("two_heads")
    expected = run_graph(net.emitted, tuple(x[:SAMPLES].numpy() for x in net.inputs))
    assert decibels(expected[0], run(net.narrow, net.inputs)[0]) < 10
    assert decibels(expected[0], run(net.file, net.inputs)[0]) > 65


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_heads", "gated", "without_kernels"])
def test_the_simulation_computes_the_emitted_graph(name: str) -> None:
    net = wide(name)
    # As ``run_graph`` lays them: the last bits of float layers depend on it.
    inputs = in_fast_layout(net.graph, net.inputs)
    found = Simulation(net.graph, net.encodings, TFLITE)(*inputs)
    expected = run_graph(net.emitted, tuple(x.numpy() for x in net.inputs))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)


@pytest.mark.parametrize("ends", [(-1.0, 2.0), (-3.0, 0.5), (0.0, 7.0)])
def test_grids_of_sixteen_bits_are_symmetric(ends: tuple[float, float]) -> None:
    grid = affine_for(Range(*ends), TFLITE, 16)
    assert (grid.zero_point, grid.qmin, grid.qmax, grid.dtype) == (0, -32768, 32767, "int16")
    assert grid.scale == np.float32(max(abs(e) for e in ends) / 32767)
    x = np.linspace(*ends, 1001, dtype=np.float32)
    assert np.abs(grid.dequantize(grid.quantize(x)) - x).max() <= 0.51 * grid.scale
