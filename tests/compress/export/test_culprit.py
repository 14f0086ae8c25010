"""A refused export names the operator, its module, the line, and what to do."""

import pytest
import torch
from small_networks import noise
from torch import Tensor, nn

from edgedl.compress.errors import ExportError
from edgedl.compress.export.culprit import find_culprit, place
from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.trace import trace


class Product(nn.Module):
    """An operator that both exporters refuse; torch.onnx under the name of a part of it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumprod(x, 1)


class Sums(nn.Module):
    """An operator that ONNX has and TFLite has not, after one that both have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.logcumsumexp(torch.log1p(x.abs()), 1)


X = (noise(2, 4),)


def deep(module: nn.Module) -> torch.fx.GraphModule:
    return trace(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), module)).eval(), X)


def test_onnx_names_operator_module_and_line() -> None:
    with pytest.raises(ExportError) as caught:
        to_onnx(deep(Product()), X)
    text = str(caught.value)
    assert "cannot export the operator aten.cumprod.default in '1.1' (test_culprit.py, line" in text
    assert "No ONNX function found for" in text
    assert "prims.prod" in text
    assert "leave this runtime out of the targets" in text
    assert len(text.splitlines()) == 1


@pytest.mark.slow
def test_tflite_names_operator_module_and_line() -> None:
    graph = deep(Sums())
    with pytest.raises(ExportError) as caught:
        to_tflite(graph, X, quantized=False)
    text = str(caught.value)
    assert "cannot convert the operator aten.logcumsumexp.default in '1.1' (test_culprit" in text
    assert "Lowering not found" in text
    assert len(text.splitlines()) == 1
    (node,) = [n for n in graph.graph.nodes if n.name == "logcumsumexp"]
    source = Sums.forward.__code__.co_firstlineno + 1
    assert place(node) == f" in '1.1' (test_culprit.py, line {source})"


def test_a_suspect_that_converts_alone_is_not_blamed() -> None:
    """The reason names ``abs``; the converter refuses another operator."""
    graph = deep(Sums())
    tried: list[str] = []

    def convert(alone: torch.fx.GraphModule, inputs: tuple[Tensor, ...]) -> None:
        (node,) = [n for n in alone.graph.nodes if n.op == "call_function"]
        tried.append(node.name)
        expected = {"abs_1": torch.abs, "log1p": torch.log1p, "logcumsumexp": None}[node.name]
        if expected is None:
            raise RuntimeError("no")
        torch.testing.assert_close(alone(*inputs), expected(*inputs))

    found = find_culprit(graph, X, convert, "something about aten.abs")
    assert found is not None
    assert found.name == "logcumsumexp"
    assert tried == ["abs_1", "log1p", "logcumsumexp"]
    assert find_culprit(graph, X, lambda *_: None, "something") is None
