"""Files that end the process which loads them are found, whatever the files before them do.

The crash and the exception are real: ONNX files that ONNX Runtime crashes on, and fails to run.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.measure.crashes import find_failures

Replace = Callable[[str, bytes], None]
HALF = TensorProto.FLOAT16
CRASHED = "crashes its runtime when it is loaded or run (signal 11 (SIGSEGV))"


def onnx_file(
    bundle: Bundle, nodes: Sequence[tuple[str, str, str, dict[str, object]]], **constants: object
) -> bytes:
    """Return a chain of operators, from the input to the output that ONNX Runtime's files have.

    Args:
        bundle: has one input and one output.
        nodes: operator, names of its inputs, name of its output, attributes.
        constants: arrays.
    """
    artifact = bundle.artifact("ort-float32")
    (x,), (y,) = artifact.inputs, artifact.outputs
    names = {"x": x.name, "y": y.name}
    graph = helper.make_graph(
        [
            helper.make_node(
                kind, [names.get(i, i) for i in inputs.split()], [names.get(output, output)], **more
            )
            for kind, inputs, output, more in nodes
        ],
        "g",
        [helper.make_tensor_value_info(x.name, TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info(y.name, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return made


def crashing_file(bundle: Bundle) -> bytes:
    """Return a recurrent layer in float16: ONNX Runtime 1.31 crashes while it optimises it."""
    return onnx_file(
        bundle,
        [
            ("Cast", "x", "half", {"to": HALF}),
            ("Reshape", "half shape", "rows", {}),
            ("Transpose", "rows", "steps", {"perm": [1, 0, 2]}),
            ("RNN", "steps w r", "states", {"hidden_size": 5}),
            ("Squeeze", "states axis", "state", {}),
            ("Transpose", "state", "back", {"perm": [1, 0, 2]}),
            ("MatMul", "back m", "product", {}),
            ("Cast", "product", "y", {"to": TensorProto.FLOAT}),
        ],
        shape=np.array([0, 36, 12]),
        w=np.ones((1, 5, 12), np.float16),
        r=np.ones((1, 5, 5), np.float16),
        m=np.ones((5, 2), np.float16),
        axis=np.array([1]),
    )


def raising_file(bundle: Bundle) -> bytes:
    """Return a reshape to a size that no input has: found out when it is run."""
    return onnx_file(bundle, [("Reshape", "x shape", "y", {})], shape=np.array([7, 11]))


def test_a_healthy_bundle_has_none(compressed: CompressedModel) -> None:
    names = [a.name for a in compressed.bundle.manifest.artifacts if a.backend != "tensorrt"]
    assert find_failures(compressed.bundle.folder, names) == {}


def test_what_a_runtime_refuses_with_an_error_is_no_failure(compressed: CompressedModel) -> None:
    (tensorrt,) = [
        a.name
        for a in compressed.bundle.manifest.artifacts
        if a.backend == "tensorrt" and a.precision == "float32"
    ]
    assert find_failures(compressed.bundle.folder, [tensorrt, "ort-float32"]) == {}


@pytest.mark.slow
def test_a_crash_is_found_behind_a_file_that_raises_and_behind_another_crash(
    bundle_copy: Path, replace_file: Replace
) -> None:
    bundle = Bundle.open(bundle_copy)
    paths = {a.name: a.path for a in bundle.manifest.artifacts}
    replace_file(paths["ort-float32"], raising_file(bundle))
    replace_file(paths["ort-float16"], crashing_file(bundle))
    replace_file(paths["ort-int8"], crashing_file(bundle))
    names = ["tflite-int8", "ort-float32", "ort-float16", "ort-int8", "tflite-float32"]
    found = find_failures(bundle_copy, names)
    assert list(found) == ["ort-float32", "ort-float16", "ort-int8"]
    assert found["ort-float16"] == found["ort-int8"] == CRASHED
    said = found["ort-float32"]
    assert said.startswith("raises ")
    assert " when it is loaded or run: " in said
    assert "Reshape" in said
    assert len(said.splitlines()) == 1
    # Nothing of this depends on the order.
    assert find_failures(bundle_copy, names[::-1]) == found


def test_a_child_that_dies_before_it_begins_blames_no_file(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle_copy / "manifest.json").write_text("{}")
    with pytest.raises(EdgedlError, match=r"before the first \(exit code 1\): .*manifest"):
        find_failures(bundle_copy, ["ort-float32"])

    real = subprocess.run
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(subprocess, "run", lambda command, **more: real(killed, **more))
    with pytest.raises(EdgedlError, match=r"\(signal 9 \(SIGKILL\)\): it said nothing"):
        find_failures(bundle_copy, ["ort-float32"])
