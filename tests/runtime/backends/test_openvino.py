"""OpenVINO against ONNX's own reference evaluator and ONNX Runtime, and files it must refuse."""

import subprocess
import sys

import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from small_networks import Net, noise, noise_task
from torch import nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.artifacts.tolerance import output_steps
from edgedl.compress.encodings.emit import emit
from edgedl.compress.export.exporter import exporter_of
from edgedl.compress.export.onnx.write import to_onnx
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.target import load_target
from edgedl.runtime.backends.openvino import OpenVINOBackend, _chains_products, executed_operators
from edgedl.runtime.backends.ort import OnnxRuntimeBackend
from edgedl.runtime.bundle.manifest import Artifact, TensorSpec
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.precision import INT8

HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def described(compressed, precision="float32", path=None):
    """Return an artifact for OpenVINO with a file that was made for ONNX Runtime, and the file."""
    like = compressed.bundle.artifact(f"ort-{'float32' if precision == 'bfloat16' else precision}")
    artifact = Artifact(
        f"openvino-{precision}", "openvino", precision, path or like.path, like.inputs,
        like.outputs, like.golden_tolerances,
    )  # fmt: skip
    return artifact, compressed.bundle.read(like.path)


def load(compressed, precision="float32", threads=1):
    artifact, content = described(compressed, precision)
    return OpenVINOBackend().load(content, artifact, threads)


def test_available_says_the_version():
    availability = OpenVINOBackend().available()
    assert availability.usable
    assert any(c.isdigit() for c in availability.detail)


def test_without_the_package_it_says_how_to_get_it(monkeypatch, compressed):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not OpenVINOBackend().available().usable
    with pytest.raises(BackendUnavailableError, match=r"pip install .*\[openvino\]'"):
        load(compressed)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_float_file_against_the_reference_evaluator(compressed, images, count):
    _, content = described(compressed)
    model = onnx.load_from_string(content)
    wanted = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: images[:count]})[0]
    (found,) = load(compressed).run([images[:count]])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    # float32 is what it says, on processors with bfloat16, too.
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_one_session_takes_batches_of_any_size(compressed, images):
    session = load(compressed)
    whole = session.run([images[:4]])[0]
    parts = [session.run([images[i : i + 1]])[0] for i in range(4)]
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-6)
    # An answer is the caller's: the next run leaves it as it is.
    first = session.run([images[:1]])[0]
    kept = first.copy()
    session.run([images[1:2]])
    np.testing.assert_array_equal(first, kept)


def test_int8_file_against_onnx_runtime_layer_by_layer(compressed, images):
    artifact, content = described(compressed, "int8")
    tensors = [t.name for t in exporter_of(load_target("openvino")).inner_tensors(content)]
    assert len(tensors) > 4
    found = OpenVINOBackend().observe(content, artifact, tensors).run([images[:1]])
    wanted = OnnxRuntimeBackend().observe(content, artifact, tensors).run([images[:1]])
    for a, b in zip(found[1:], wanted[1:], strict=True):
        assert a.dtype == np.uint8
        assert np.abs(a.astype(int) - b).max() <= 2
    integers = ("u8", "i8")
    kinds = {one.kind for one in executed_operators(content) if one.precision in integers}
    assert "Convolution" in kinds


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("keepdim", [False, True])
def test_a_mean_over_one_axis_is_right_in_large_batches(axis, keepdim):
    """OpenVINO 2026's own kernel for integers [N, C, T] is not, and its answer is far off."""
    torch.manual_seed(0)
    target = load_target("openvino")
    net = Net(lambda m, x: m.conv(x).mean(axis, keepdim), conv=nn.Conv1d(3, 16, 3, padding=1))
    state = begin(Subject("mean", net.eval(), noise_task((3, 16))))
    state = QuantizeStatic(samples=8, weight_bits=7).apply(state)
    path, content = ArtifactBuilder(state).file(target, INT8)
    x = noise(64, 3, 16).numpy()
    (expected,) = run_graph(emit(state.graph, state.quantized.encodings, target), (x,))
    spec = TensorSpec("x", (None, 3, 16), "float32")
    given = TensorSpec("output_0", (None, *expected.shape[1:]), "float32")
    artifact = Artifact("openvino-int8", "openvino", "int8", path, (spec,), (given,), (0.1,))
    for batch in (1, 64):
        (found,) = OpenVINOBackend().load(content, artifact, 1).run([x[:batch]])
        (step,) = output_steps(state, target)
        assert np.abs(found - expected[:batch]).max() <= 1.01 * step


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this processor has no bfloat16")
def test_bfloat16_is_computed_in_bfloat16(compressed, images):
    (exact,), (found,) = (load(compressed, p).run([images]) for p in ("float32", "bfloat16"))
    error = np.abs(found - exact).max() / np.abs(exact).max()
    # 8 bits of mantissa, not 24.
    assert 1e-4 < error < 5e-2


def test_bfloat16_is_refused_where_the_processor_has_none(compressed, monkeypatch):
    whole = openvino.Core.get_property

    def without(self, device, name, *rest):
        found = whole(self, device, name, *rest)
        return [c for c in found if c != "BF16"] if name == "OPTIMIZATION_CAPABILITIES" else found

    monkeypatch.setattr(openvino.Core, "get_property", without)
    with pytest.raises(BadInputError, match="no bfloat16"):
        load(compressed, "bfloat16")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_threads_do_not_change_the_answer(compressed, images, precision):
    (one,) = load(compressed, precision, threads=1).run([images])
    (two,) = load(compressed, precision, threads=2).run([images])
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 4096])
def test_a_damaged_file_is_refused_in_one_line(compressed, content):
    artifact, _ = described(compressed)
    said = f"OpenVINO refuses {artifact.path}: |{artifact.path} is no ONNX file, or damaged: "
    with pytest.raises(BadInputError, match=said) as caught:
        OpenVINOBackend().load(content, artifact, 1)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_without_the_tensors_of_its_manifest_is_refused(compressed):
    artifact, _ = described(compressed)
    other = onnx.load_from_string(described(compressed)[1])
    other.graph.output[0].name = "elsewhere"
    for node in other.graph.node:
        node.output[:] = ["elsewhere" if n == artifact.outputs[0].name else n for n in node.output]
    with pytest.raises(BadInputError, match=f"no tensor '{artifact.outputs[0].name}'"):
        OpenVINOBackend().load(other.SerializeToString(), artifact, 1)


def test_a_closed_session_says_so(compressed, images):
    session = load(compressed)
    session.close()
    with pytest.raises(BadInputError, match="closed"):
        session.run([images[:1]])


class Residual(nn.Module):
    """Layers of matrices, some of them around each other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 12), nn.Linear(12, 10)
        self.c, self.d = nn.Linear(10, 12), nn.Linear(12, 10)
        self.e, self.f, self.g = nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        x = x + self.b(self.a(x).relu())
        x = x + self.d(self.c(x).relu())
        return self.g(self.f(self.e(x).tanh())).sigmoid()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_layers_of_matrices_do_not_crash(tmp_path, threads):
    """In a process of its own: OpenVINO 2026.4 ends it where it joins these layers."""
    torch.manual_seed(0)
    x = torch.randn(2, 10)
    path = tmp_path / "mlp.onnx"
    path.write_bytes(to_onnx(trace(Residual().eval(), (x,)), (x,)))
    run = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from edgedl.runtime.backends.runtimes import open_backend\n"
        "from edgedl.runtime.bundle.manifest import Artifact, TensorSpec\n"
        "x, y = (TensorSpec(n, (None, c), 'float32') for n, c in (('x', 10), ('output_0', 1)))\n"
        "file = Artifact('mlp', 'openvino', 'float32', 'mlp.onnx', (x,), (y,), (0.1,))\n"
        "content = Path(sys.argv[1]).read_bytes()\n"
        "session = open_backend('openvino').load(content, file, int(sys.argv[2]))\n"
        "for count in (1, 5, 8):\n"
        "    print(session.run([np.ones((count, 10), np.float32)])[0].shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", run, path, str(threads)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["(1, 1)", "(5, 1)", "(8, 1)"]


@pytest.mark.parametrize(
    ("net", "shape", "chained"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), (4,), True),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), (5, 4), False),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (4,), False),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)),
            (3, 8, 8),
            False,
        ),
    ],
)
def test_only_chains_of_matrix_products_are_kept_apart(net, shape, chained):
    import openvino

    x = torch.randn(2, *shape)
    content = to_onnx(trace(net().eval(), (x,)), (x,))
    assert _chains_products(openvino.Core().read_model(content)) is chained
