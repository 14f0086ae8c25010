"""The operator matrix: every case is sound, and the page says what was found."""

from pathlib import Path

import pytest
import torch
from command import Run

from benchmarks.operators.cases import OperatorCase, operator_cases
from benchmarks.operators.matrix import ARTIFACTS, RECIPES, Cell, Row, folder_name, support_matrix
from benchmarks.operators.page import render_page
from benchmarks.operators.run import main
from edgedl.compress.graph.operators.table import ROWS, row_of
from edgedl.compress.graph.trace import trace
from edgedl.compress.subject.outputs import as_tuple
from edgedl.runtime.measure.device import run_context
from edgedl.runtime.progress import SILENT

CASES = operator_cases()
# Row of the operator table -> the case whose traced graph has it.
CASE_OF = {
    "conv1d": "Conv1d",
    "conv2d": "Conv2d",
    "linear": "Linear, [N, C]",
    "matmul": "matmul of two activations",
    "relu": "ReLU",
    "relu6": "ReLU6",
    "hardtanh": "Hardtanh",
    "leaky_relu": "LeakyReLU",
    "gelu": "GELU",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "softmax",
    "prelu": "PReLU",
    "max_pool1d": "MaxPool1d",
    "max_pool2d": "MaxPool2d",
    "avg_pool2d": "AvgPool2d",
    "adaptive_avg_pool2d": "AdaptiveAvgPool2d(2)",
    "upsample_nearest2d": "resize, nearest",
    "upsample_bilinear2d": "resize, bilinear",
    "layer_norm": "LayerNorm",
    "instance_norm": "InstanceNorm2d",
    "rms_norm": "RMSNorm",
    "group_norm": "GroupNorm",
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "div": "div",
    "maximum": "maximum",
    "contiguous": "MultiheadAttention",
    "view": "MultiheadAttention",
    "reshape": "scaled_dot_product_attention",
    "flatten": "flatten",
    "unflatten": "unflatten and movedim",
    "transpose": "matmul of two activations",
    "permute": "MultiheadAttention",
    "unsqueeze": "ConvTranspose1d",
    "squeeze": "MultiheadAttention",
    "repeat_interleave": "repeat_interleave",
    "flip": "flip",
    "channel_shuffle": "channel shuffle",
    "pixel_shuffle": "pixel shuffle",
    "sym_size": "LSTM",
    "cat": "cat",
    "pad": "pad with zeros",
    "slice": "slice",
    "select": "MultiheadAttention",
    "getitem": "LSTM",
    "mean": "mean over height and width",
    "sum": "sum over height and width",
    "amax": "AdaptiveMaxPool2d(1)",
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn_tanh": "RNN",
    "embedding": "Embedding",
    "index_select": "index by a list",
}
# Rows without a case -> why.
WITHOUT_CASE = {
    "written with other operators before anything else": (
        "adaptive_avg_pool1d adaptive_max_pool2d avg_pool1d alias batch_norm bmm chunk clone "
        "conv_transpose1d conv_transpose2d einsum expand_as glu hardswish_ max movedim repeat roll "
        "scaled_dot_product_attention split split_with_sizes stack swapaxes t tile unbind"
    ),
    "gone in evaluation mode": "dropout",
    "as another one that has a case": (
        "clamp constant_pad_nd expand minimum pixel_unshuffle upsample_nearest1d"
    ),
    "chooses by order, see tests/compress/parity/test_blame.py": "argsort sort topk",
    "a small error of a float makes a whole step, see tests/compress/artifacts/test_artifacts.py": (
        "ge gt le lt sign heaviside round floor ceil trunc"
    ),
    "made by masks alone, see tests/compress/graph/passes/test_masked_attention.py": (
        "where masked_fill"
    ),
    "computes in float, has a row for its axes or multiply-adds alone": (
        "addmm amin argmax baddbmm cumsum linalg_vector_norm log_sigmoid log_softmax logsumexp "
        "log log10 log2 min reciprocal rsqrt sqrt std var zeros zeros_like"
    ),
}


def test_names_are_unique() -> None:
    for names in ([c.name for c in CASES], [folder_name(c).lower() for c in CASES]):
        assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_every_case_is_a_network_that_can_be_traced(case: OperatorCase) -> None:
    torch.manual_seed(0)
    net, inputs = case.make().eval(), case.inputs(2)
    with torch.no_grad():
        outputs = as_tuple(net(*inputs))
    assert all(torch.isfinite(y).all() and y.std() > 0 for y in outputs)
    found = {row_of(node).name for node in trace(net, inputs).graph.nodes}
    assert {row for row, name in CASE_OF.items() if name == case.name} <= found


def test_every_row_has_a_case_or_a_reason() -> None:
    excused = " ".join(WITHOUT_CASE.values()).split()
    assert sorted([*CASE_OF, *excused]) == sorted(row.name for row in ROWS)
    assert set(CASE_OF.values()) <= {case.name for case in CASES}


@pytest.mark.slow
def test_what_runs_in_integers_and_what_does_not(edgedl: Run, tmp_path: Path) -> None:
    cases = [c for c in CASES if c.name == "LayerNorm"]
    (row,) = support_matrix(cases, SILENT, tmp_path)
    assert set(row.cells) == set(ARTIFACTS)
    outcomes = {name: cell.outcome for name, cell in row.cells.items()}
    for name in ("ort-float32", "tflite-float16", "ort-int4_weights"):
        assert outcomes[name] == "runs"
    # No GPU has run TensorRT's.
    tensorrt = {name: o for name, o in outcomes.items() if name.startswith("tensorrt")}
    assert set(tensorrt.values()) == {"accepted"}
    # The converter folds a norm's scale into the weight behind it, whose integers are then lost.
    refused = {name for name, outcome in outcomes.items() if outcome == "refused"}
    # bfloat16 is not computed by every processor.
    assert refused <= {"tflite-int8_weights", "tflite-int4_weights", "openvino-bfloat16"}
    assert outcomes["ort-int8"] == "partly"
    assert "LayerNormalization" in row.cells["ort-int8"].detail
    assert "RSQRT" in row.cells["tflite-int8"].detail
    # What a device would do with the bundles.
    bundles = sorted(tmp_path.glob("LayerNorm/*"))
    assert len(bundles) == len(RECIPES)
    done = edgedl("verify", *bundles, "--parity")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ort-float32: ok") == len(bundles)
    (bundles[0] / "golden.npz").write_bytes(b"")
    broken = edgedl("verify", *bundles)
    assert broken.returncode == 5
    assert str(bundles[0]) in broken.stderr


def test_the_page_counts_and_explains() -> None:
    cells = dict.fromkeys(ARTIFACTS, Cell("runs"))
    rows = [
        Row("layer", "first", cells),
        Row("norm", "second", {**cells, "ort-int8": Cell("partly", "Exp")}),
        Row(
            "norm",
            "third",
            {**cells, "ort-int8": Cell("refused", "because\n of /x/site-packages/y.py")},
        ),
    ]
    page = render_page(rows, run_context(), "the checker")
    assert "3 operators" in page
    assert "checked by the checker" in page
    (counts,) = [x for x in page.splitlines() if x.startswith("| ort-int8 ")]
    assert [c.strip() for c in counts.split("|")[2:6]] == ["1", "1", "0", "1"]
    assert "float: Exp" in page
    assert "1. because of y.py\n" in page
    assert page.index("## ort") < page.index("## tflite") < page.index("## tensorrt")
    assert "- no fp8: TFLite has no FP8 kernels" in page


def test_an_unknown_operator_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing-like-it", "--out", str(tmp_path / "page.md")]) == 2
    assert "no operator has 'nothing-like-it' in its name" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
