"""Layers read from model files, against what the network and the table of the bundle say."""

import json

import numpy as np
import pytest
from command import Run
from tiny import make_net

from edgedl.compress.bundle_files import ENCODINGS
from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.encodings import Range
from edgedl.compress.graph.run import count_macs
from edgedl.compress.modelfile.align import align, same_grid
from edgedl.compress.modelfile.layer import FileLayer, Grid
from edgedl.compress.modelfile.read import read_layers
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.targets.named import ORT, TFLITE
from edgedl.compress.targets.target import Target
from edgedl.runtime.errors import BadInputError

FILES = ("float32.onnx", "int8.ort.onnx", "int8.tensorrt.onnx", "float32.tflite", "int8.tflite")


def layers(compressed: CompressedModel, name: str) -> list[FileLayer]:
    return read_layers(compressed.bundle.read(name), name)


@pytest.mark.parametrize("name", FILES)
def test_multiply_accumulates_are_those_of_the_network(compressed: CompressedModel, name: str):
    import torch

    expected = count_macs(make_net(), (torch.zeros(1, 3, 12, 12),))
    assert sum(layer.macs for layer in layers(compressed, name)) == expected
    # By hand: stem, depthwise, pointwise and branch over 144 or 36 positions, linear.
    assert expected == 144 * (8 * 27 + 8 * 9 + 8 * 8) + 36 * 4 * 8 + 12 * 4


@pytest.mark.parametrize(("name", "target"), [("int8.ort.onnx", ORT), ("int8.tflite", TFLITE)])
def test_grids_are_those_of_the_table(compressed: CompressedModel, name: str, target: Target):
    table = json.loads(compressed.bundle.read(ENCODINGS))["activations"]
    known = {
        (np.float32(a.scale), a.zero_point)
        for a in (affine_for(Range(r["lo"], r["hi"]), target) for r in table.values())
    }
    found = [layer.output for layer in layers(compressed, name) if layer.output is not None]
    assert len(found) >= 6
    for grid in found:
        assert (np.float32(grid.scales[0]), grid.zero_points[0]) in known


@pytest.mark.parametrize("name", ["int8.ort.onnx", "int8.tflite"])
def test_weights_are_int8_per_channel(compressed: CompressedModel, name: str):
    with_weights = [layer for layer in layers(compressed, name) if layer.macs]
    assert len(with_weights) == 5
    assert [len(layer.weight.scales) for layer in with_weights] == [8, 8, 8, 4, 4]
    for layer in with_weights:
        assert layer.weight.dtype == "int8"
        assert set(layer.weight.zero_points) == {0}
        assert layer.inputs == ("uint8" if name.endswith("onnx") else "int8")


def test_float_layers_have_no_grids_and_four_bytes_a_weight(compressed: CompressedModel):
    for name in ("float32.onnx", "float32.tflite"):
        found = [layer for layer in layers(compressed, name) if layer.macs]
        assert {(layer.output, layer.weight, layer.inputs) for layer in found} == {
            (None, None, "float32")
        }
        # Batch norm is folded: weight and bias of every layer.
        assert sum(layer.weight_bytes for layer in found) == 4 * (
            (216 + 8) + (72 + 8) + (64 + 8) + (32 + 4) + (48 + 4)
        )


def test_tflite_layers_have_the_names_of_modules(compressed: CompressedModel):
    names = [layer.name for layer in layers(compressed, "float32.tflite") if layer.macs]
    assert names[-1].startswith(("fc", "serving_default_output", "Wrapper"))
    assert {"depthwise", "branch"} & set(names)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_file_cut_short_is_refused(compressed: CompressedModel, name: str, share: float):
    content = compressed.bundle.read(name)
    with pytest.raises(BadInputError, match="not a"):
        read_layers(content[: int(len(content) * share)], name)


def test_another_format_is_refused():
    with pytest.raises(BadInputError, match=r"model\.pt is neither a bundle nor"):
        read_layers(b"PK", "model.pt")


def test_the_command_shows_a_file_and_every_file_of_a_bundle(
    edgedl: Run, compressed: CompressedModel
):
    folder = compressed.bundle.folder
    one = edgedl("inspect", folder / "int8.tflite")
    assert one.returncode == 0, one.stderr
    assert "CONV_2D" in one.stdout
    assert "int8 per channel (8)" in one.stdout
    every = edgedl("inspect", folder, "--layers")
    assert every.stdout.count(" MACs\n") == len(compressed.bundle.manifest.artifacts)
    found = json.loads(edgedl("inspect", folder / "int8.ort.onnx", "--json").stdout)
    ((_, rows),) = found.items()
    assert sum(row["macs"] for row in rows) > 0
    assert edgedl("inspect", folder / "golden.npz").returncode == 2
    assert edgedl("inspect", folder / "nowhere.onnx").returncode == 2


def test_both_int8_files_are_the_same_layer_by_layer(compressed: CompressedModel):
    matches = align(layers(compressed, "int8.ort.onnx"), layers(compressed, "int8.tflite"))
    working = [m for m in matches if m.first is not None and m.first.macs]
    assert len(working) == 5
    for match in working:
        assert match.second.macs == match.first.macs
        assert not [d for d in match.differences() if not d.endswith("bytes")]


def test_what_differs_is_said(compressed: CompressedModel):
    before, after = (layers(compressed, f) for f in ("float32.onnx", "int8.ort.onnx"))
    for match in align(before, after):
        if match.first is not None and match.second is not None and match.first.macs:
            first, *_, last = match.differences()
            assert first == "computes float32 / uint8"
            assert last.endswith("bytes")
    assert not [m for m in align(after, after) if m.differences()]
    extra = align(after, after[1:])
    assert [m.differences() for m in extra if m.second is None] == [["only in A"]]
    assert [m.differences() for m in align(after[1:], after) if m.first is None] == [["only in B"]]


def element_wise(*operators: str) -> list[FileLayer]:
    return [
        FileLayer(f"{o}_{i}", o, (1, 8), "float32", None, None, 0, 0)
        for i, o in enumerate(operators)
    ]


@pytest.mark.parametrize(
    ("first", "second", "paired"),
    [
        # Of one size all: the first two of three would be taken, were it not for their operators.
        (("Mul", "Add", "Relu"), ("ADD", "RELU"), [("Add", "ADD"), ("Relu", "RELU")]),
        (("MaxPool", "Sigmoid"), ("LOGISTIC", "MAX_POOL_2D"), [("MaxPool", "MAX_POOL_2D")]),
        # Only the size is left to go by where each format has its own word.
        (("Add", "Sigmoid"), ("ADD", "LOGISTIC"), [("Add", "ADD"), ("Sigmoid", "LOGISTIC")]),
    ],
)
def test_layers_of_one_size_match_by_operator(
    first: tuple[str, ...], second: tuple[str, ...], paired: list[tuple[str, str]]
):
    matches = align(element_wise(*first), element_wise(*second))
    both = [m for m in matches if m.first is not None and m.second is not None]
    assert [(m.first.operator, m.second.operator) for m in both] == paired
    assert len(matches) == len(first) + len(second) - len(paired)


def test_layers_of_one_file_format_match_by_name():
    one = element_wise("Add", "Add", "Add")
    assert [(m.first, m.second) for m in align(one, one[1:])] == [
        (one[0], None),
        (one[1], one[1]),
        (one[2], one[2]),
    ]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Grid("int8", (0.5,), (-128,)), True),
        (Grid("uint8", (0.5,), (0,)), True),
        (Grid("int8", (0.5,), (0,)), False),
        (Grid("int8", (0.25,), (-128,)), False),
        (Grid("int8", (0.5, 0.5), (-128, -128)), False),
    ],
)
def test_a_grid_and_its_shift_are_one(other: Grid, same: bool):
    assert same_grid(Grid("uint8", (0.5,), (0,)), other) == same


def test_the_diff_command(edgedl: Run, compressed: CompressedModel):
    folder = compressed.bundle.folder
    done = edgedl("diff", folder / "int8.ort.onnx", folder / "int8.tflite", "--all")
    assert done.returncode == 0, done.stderr
    assert "matched layers are the same" in done.stdout
    found = json.loads(
        edgedl("diff", folder / "float32.onnx", folder / "int8.ort.onnx", "--json").stdout
    )
    assert any(m["first"] and m["second"] for m in found)
    for a, b in (("nowhere.onnx", "int8.tflite"), ("int8.tflite", "golden.npz")):
        assert edgedl("diff", folder / a, folder / b).returncode == 2
