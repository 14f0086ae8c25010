"""Half precision inside, float32 outside."""

import numpy as np
import onnx
import pytest
import torch
from small_networks import NETWORKS, Net, network, noise
from torch import nn

from edgedl.compress.export.float_types import to_bfloat16, to_float16
from edgedl.compress.export.onnx.write import BFLOAT16_OPSET, to_onnx
from edgedl.compress.export.tensorrt.check import check_tensorrt
from edgedl.compress.export.tensorrt.exporter import _UnoptimizedOnnxRuntime
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.errors import BackendUnavailableError


@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_half_precision_and_near_the_float32_ones(name: str) -> None:
    net = network(name)
    half = to_float16(net.graph)
    for a, b in zip(net.outputs(half), net.outputs(net.graph), strict=True):
        assert a.dtype == np.float32
        assert np.array_equal(a, a.astype(np.float16).astype(np.float32))
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01)


def test_every_weight_and_inner_value_is_half() -> None:
    half = to_float16(network("operators").graph)
    assert {t.dtype for t in [*half.parameters(), *half.buffers()]} == {torch.float16}

    class Watch(torch.fx.Interpreter):
        seen: set[torch.dtype] = set()  # noqa: RUF012

        def call_function(self, target: object, args: tuple, kwargs: dict) -> object:
            self.seen |= {a.dtype for a in args if isinstance(a, torch.Tensor)}
            return super().call_function(target, args, kwargs)

    with torch.no_grad():
        Watch(half).run(*network("operators").inputs)
    # float32 enters the first cast only.
    casts = [n for n in half.graph.nodes if n.target is torch.ops.aten.to.dtype]
    assert [n.args[1] for n in casts] == [torch.float16, torch.float32]
    assert Watch.seen == {torch.float16, torch.float32}


def test_the_float_graph_stays_as_it_is() -> None:
    graph = network("joined").graph
    code = graph.code
    to_float16(graph)
    assert graph.code == code
    assert {p.dtype for p in graph.parameters()} == {torch.float32}


def test_an_input_that_is_an_output_and_an_output_used_twice() -> None:
    net = Net(lambda net, x: (x, net.fc(x), net.fc(x).relu()), fc=nn.Linear(3, 2))
    x = noise(4, 3)
    found = run_graph(to_float16(trace(net, (x,))), (x.numpy(),))
    with torch.no_grad():
        expected = as_tuple(net(x))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_has_eight_bits_and_floats_outside(name: str) -> None:
    net = network(name)
    half = to_bfloat16(net.graph)
    assert {t.dtype for t in [*half.parameters(), *half.buffers()]} == {torch.bfloat16}
    for a, b in zip(net.outputs(half), net.outputs(net.graph), strict=True):
        assert a.dtype == np.float32
        # The lower 16 bits of a float32 that was a bfloat16 are zeros.
        assert not (a.view(np.uint32) & 0xFFFF).any()
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, rtol=0.1, atol=0.05)


def test_bfloat16_is_a_valid_file_that_tensorrt_takes_and_onnx_runtime_cannot_run() -> None:
    net = network("operators")
    file = to_onnx(to_bfloat16(net.graph), net.inputs, opset=BFLOAT16_OPSET)
    model = onnx.load_from_string(file)
    # With inference of types: an operator that has no bfloat16 in this opset is refused here.
    onnx.checker.check_model(model, full_check=True)
    stored = {t.data_type for t in model.graph.initializer if len(t.dims) > 1}
    assert stored == {onnx.TensorProto.BFLOAT16}
    values = [*model.graph.input, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in values} == {onnx.TensorProto.FLOAT}
    verdict = check_tensorrt(file)
    assert verdict.accepted, verdict.reason
    with pytest.raises(BackendUnavailableError, match="cannot stand in for TensorRT"):
        _UnoptimizedOnnxRuntime(file)
