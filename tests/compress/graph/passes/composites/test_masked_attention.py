"""Masked attention over embedded ids: the mask gets no integers, and the files compute alike."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from file_readers import TFLiteFile
from torch import Tensor, nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.encodings.emit import emit
from edgedl.compress.encodings.placement import quantized_nodes
from edgedl.compress.export.float_types import to_float16
from edgedl.compress.graph.operators.operator import aten
from edgedl.compress.graph.operators.table import row_of
from edgedl.compress.graph.run import run_graph
from edgedl.compress.pipeline import compress
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import weight_bits
from edgedl.runtime.precision import FLOAT16, INT8
from edgedl.runtime.selfcheck.layers import check_layers
from edgedl.runtime.task.task import ArrayTask, Samples

_ops = torch.ops.quantized_decomposed
VOCABULARY, WIDTH, LENGTH = 500, 16, 6


class Encoder(nn.Module):
    """One layer of self-attention that does not see padding (id 0)."""

    def __init__(self, additive: bool) -> None:
        super().__init__()
        self.additive = additive
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        query, key, value = self.query(x), self.key(x), self.value(x)
        visible = ids != 0
        if self.additive:
            scores = query @ key.transpose(1, 2) / WIDTH**0.5
            scores = scores + (1.0 - visible[:, None].float()) * -1e9
            y = torch.softmax(scores, -1) @ value
        else:
            y = F.scaled_dot_product_attention(query, key, value, visible[:, None])
        return self.fc(self.norm(x + y).mean(1))


@cache
def quantized(additive: bool, scope: str) -> ModelState:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, VOCABULARY, (64, LENGTH))
    for row, length in zip(ids, rng.integers(3, LENGTH + 1, 64), strict=True):
        row[length:] = 0
    samples = Samples((ids,), np.zeros(64, np.int64))
    task = ArrayTask("ids", {"calibration": lambda: samples, "test": lambda: samples})
    subject = Subject("encoder", Encoder(additive).eval(), task)
    state = begin(subject)
    bits = weight_bits((ORT,))
    return QuantizeStatic(64, observer="minmax", scope=scope, weight_bits=bits).apply(state)


def ids_of(state: ModelState) -> np.ndarray:
    return next(state.subject.task.batches("test", 64)).inputs[0]


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("scope", ["every_operator", "products"])
def test_a_mask_leaves_the_scores_their_integers(additive: bool, scope: str) -> None:
    state = quantized(additive, scope)
    ids = ids_of(state)
    (expected,) = run_graph(state.graph, (ids,))
    (found,) = run_graph(emit(state.quantized.graph, state.quantized.encodings, ORT), (ids,))
    # A range that held -1e9 would make every visible position weigh the same.
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    ranges = state.quantized.encodings.activations
    (softmax,) = [n for n in state.graph.graph.nodes if n.target is aten.softmax.int]
    assert softmax.args[0].name not in ranges
    computed = [n for n in state.graph.graph.nodes if n.target is aten.matmul.default]
    assert all(ranges[n.name].lo > -100 for n in computed)


def test_scope_products_keeps_everything_else_in_float() -> None:
    state = quantized(False, "products")
    chosen = quantized_nodes(state.quantized.graph.graph, state.quantized.encodings)
    products = {n for n in state.graph.graph.nodes if row_of(n).product}
    assert len(products) == 6
    assert products <= chosen
    moved = {n.target for n in chosen - products}
    assert aten.embedding.default in moved
    assert not moved & {aten.add.Tensor, aten.softmax.int, aten.layer_norm.default, aten.mean.dim}


def test_results_stay_float_only_where_the_runtime_gives_floats() -> None:
    state = quantized(False, "products")
    unrounded = state.quantized.encodings.float_results
    assert unrounded
    for target, rounded in ((ORT, False), (TFLITE, True)):
        graph = emit(state.quantized.graph, state.quantized.encodings, target)
        readers = {n.name: [u.target for u in n.users] for n in graph.graph.nodes}
        quantize = _ops.quantize_per_tensor.default
        assert all((quantize in readers[name]) == rounded for name in unrounded)


@pytest.mark.parametrize("scope", ["every_operator", "products"])
def test_onnx_runtime_computes_the_graph_with_a_table_of_integers(scope: str) -> None:
    state = quantized(False, scope)
    _, content = ArtifactBuilder(state).file(ORT, INT8)
    ids = ids_of(state)
    (expected,) = run_graph(emit(state.quantized.graph, state.quantized.encodings, ORT), (ids,))
    (found,) = onnxruntime.InferenceSession(content).run(None, {"ids": ids})
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    assert len(content) < VOCABULARY * WIDTH * 4


@pytest.mark.slow
def test_a_bundle_certifies_layers_but_no_tables(tmp_path: Path) -> None:
    subject = replace(quantized(False, "products").subject, module=Encoder(False).eval())
    recipe = Recipe("products", (QuantizeStatic(64, observer="minmax", scope="products"),))
    made = compress(subject, recipe, (ORT, TFLITE), tmp_path)
    assert not made.refusals
    artifacts = {a.name: a for a in made.bundle.manifest.artifacts}
    for name in ("ort-int8", "tflite-int8"):
        layers = artifacts[name].parity.layers
        compared = {layer.layer for layer in layers.layers}
        assert {"query", "key", "value"} <= compared
        assert not [n for n in (*compared, *layers.not_compared) if "weight" in n]
        assert check_layers(made.bundle, artifacts[name]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["every_operator", "products"])
def test_litert_computes_the_graph(scope: str) -> None:
    state = quantized(False, scope)
    file = TFLiteFile(ArtifactBuilder(state).file(TFLITE, INT8)[1])
    ids = ids_of(state)
    graph = emit(state.quantized.graph, state.quantized.encodings, TFLITE)
    (expected,) = run_graph(graph, (ids,))
    (found,) = file.run((ids.astype(np.int32),))
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_a_mask_keeps_half_precision_half() -> None:
    state = quantized(False, "every_operator")
    ids = ids_of(state)
    (expected,) = run_graph(state.graph, (ids,))
    (found,) = run_graph(to_float16(state.graph), (ids,))
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())
    _, content = ArtifactBuilder(state).file(ORT, FLOAT16)
    (found,) = onnxruntime.InferenceSession(content).run(None, {"ids": ids})
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


class Causal(nn.Module):
    """Attention that sees what came before, by a stored mask of infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.fc = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.register_buffer("later", torch.full((LENGTH, LENGTH), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x)
        scores = query @ x.transpose(1, 2) / WIDTH**0.5 + self.later
        return self.fc(torch.softmax(scores, -1) @ self.value(x)).mean(1)


def test_a_mask_of_infinities_has_no_grid() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((64, LENGTH, WIDTH)).astype(np.float32)
    samples = Samples((x,), np.zeros(64, np.int64))
    task = ArrayTask("steps", {"calibration": lambda: samples, "test": lambda: samples})
    state = QuantizeStatic(64).apply(begin(Subject("causal", Causal().eval(), task)))
    (expected,) = run_graph(state.graph, (x,))
    (found,) = run_graph(emit(state.quantized.graph, state.quantized.encodings, ORT), (x,))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
