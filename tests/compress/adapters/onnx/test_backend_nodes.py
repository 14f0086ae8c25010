"""ONNX's own tests of single nodes: what is imported gives what they say, the rest is refused."""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.backend.test.case.node import collect_testcases

from edgedl.compress.adapters.onnx.network import OnnxNetwork
from edgedl.compress.adapters.onnx.operators.table import OPERATORS
from edgedl.compress.adapters.onnx.values import NotImportedError
from edgedl.compress.modelfile.onnx_constants import store_constants

# Equal values have no order that torch promises; ONNX takes the first.
TIES = ("test_top_k_same_values", "test_top_k_same_values_2d", "test_top_k_same_values_largest")
# Tests of operators that are imported, with numbers for inputs: how many give what ONNX says.
PASS = 850
SHARE = 0.8


def numbers(arrays):
    return all(isinstance(x, np.ndarray) and x.dtype.kind in "fiub" for x in arrays)


@cache
def cases():
    """Return ONNX's test cases whose operators are all in the table, by name."""
    found = {}
    for case in collect_testcases(None):
        nodes = case.model.graph.node
        named = {f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in nodes}
        inputs, outputs = case.data_sets[0]
        if named <= set(OPERATORS) and numbers([*inputs, *outputs]) and inputs:
            found[case.name] = case
    return found


def outcome(case):
    """Run a case, all inputs but the first stored in the file; return what came of it."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, outputs = case.data_sets[0]
    names = [value.name for value in model.graph.input]
    for name, array in list(zip(names, inputs, strict=True))[1:]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    first = torch.from_numpy(np.array(inputs[0]))
    first = first.float() if first.is_floating_point() else first
    first = first.long() if first.dtype not in (torch.bool, torch.float32) else first
    try:
        network = OnnxNetwork(store_constants(model), free_batch=False)
        with torch.no_grad():
            found = list(network(first).values())
    except NotImportedError:
        return "refused"
    half = any(np.asarray(y).dtype == np.float16 for y in outputs)
    for a, b in zip(found, outputs, strict=True):
        expected = np.asarray(b).astype(np.float64)
        if a.shape != expected.shape:
            return "wrong"
        close = (1e-2, 1e-2) if half else (1e-4, 1e-4)
        if not np.allclose(a.numpy().astype(np.float64), expected, *close, equal_nan=True):
            return "wrong"
    return "right"


@pytest.mark.slow
def test_what_is_imported_is_right():
    outcomes = {name: outcome(case) for name, case in cases().items() if name not in TIES}
    assert [name for name, found in outcomes.items() if found == "wrong"] == []
    counts = Counter(outcomes.values())
    assert counts["right"] >= PASS
    assert counts["right"] >= SHARE * len(outcomes)


def test_the_page_lists_the_table():
    text = (Path(__file__).parents[4] / "docs" / "onnx.md").read_text()
    listed = re.findall(r"`([\w.]+)`", text.partition("## Operators")[2])
    assert sorted(listed) == sorted(OPERATORS)


@pytest.mark.parametrize(
    "name",
    ["test_conv_with_strides_padding", "test_gemm_default_vector_bias", "test_lstm_defaults",
     "test_softmax_axis_1", "test_slice_neg_steps", "test_resize_upsample_scales_linear"],
)  # fmt: skip
def test_some_of_them_quickly(name):
    assert outcome(cases()[name]) == "right"
