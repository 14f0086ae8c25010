"""The main job: what is in a bundle, what is said on the way, and what it leaves alone."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from listening import steps_to
from small_networks import Net, TwoInputs, network, noise_task
from tiny import CLASSES, make_net, make_subject
from torch import Tensor, nn

from edgedl.compress.artifacts.build import ArtifactBuilder
from edgedl.compress.bundle_files import ENCODINGS
from edgedl.compress.encodings.emit import emit
from edgedl.compress.graph.run import run_graph
from edgedl.compress.parity import check_files
from edgedl.compress.parity.golden_samples import choose_golden
from edgedl.compress.pipeline import CompressedModel, compress
from edgedl.compress.recipe.recipe import Recipe
from edgedl.compress.recipe.recipe_file import load_recipe
from edgedl.compress.stage import Found, Stage
from edgedl.compress.state import ModelState
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, TENSORRT, TFLITE
from edgedl.compress.targets.target import Target, weight_bits
from edgedl.compress.toolchain import toolchain
from edgedl.runtime.bundle.bundle import Bundle, record_files, write_manifest
from edgedl.runtime.bundle.golden import GOLDEN
from edgedl.runtime.bundle.manifest import Artifact, HistoryEntry
from edgedl.runtime.errors import BackendUnavailableError, BadInputError, EdgedlError
from edgedl.runtime.precision import FLOAT32
from edgedl.runtime.runner import Runner
from edgedl.runtime.selfcheck.golden import check_golden

NAMES = [
    f"{target.name}-{precision}"
    for target in (ORT, TFLITE, TENSORRT)
    for precision in ("float32", "float16", "int8")
]
NAMES.insert(-1, "tensorrt-bfloat16")


def test_every_artifact_is_there_and_nothing_was_refused(compressed: CompressedModel) -> None:
    assert [a.name for a in compressed.bundle.manifest.artifacts] == NAMES
    assert compressed.refusals == ()


def test_the_manifest_describes_the_model(compressed: CompressedModel) -> None:
    manifest = compressed.bundle.manifest
    subject = make_subject()
    assert manifest.name == "tiny"
    assert manifest.task.classes == CLASSES
    assert manifest.preprocessing == subject.task.preprocessing
    assert [(s.name, s.shape, s.dtype) for s in manifest.inputs] == [
        ("x", (None, 3, 12, 12), "float32")
    ]
    assert [(s.shape, s.dtype) for s in manifest.outputs] == [((None, 4), "float32")]
    settings = {
        "samples": 512,
        "batch_size": 32,
        "observer": "mse",
        "keep_float": (),
        "percentile": 99.99,
        "weight_observer": "minmax",
        "weight_bits": weight_bits((ORT,)),
        "scope": "every_operator",
        "activation_bits": 8,
    }
    assert manifest.history == (
        HistoryEntry("quantize_static", settings),
        HistoryEntry(
            "round_weights", {"samples": 128, "batch_size": 16, "judged": 32, "kept": True}
        ),
    )
    assert (manifest.licence, manifest.data) == ("not stated", "not stated")
    assert manifest.recommended is None
    assert manifest.toolchain.keys() == toolchain().keys()
    assert torch.__version__.startswith(manifest.toolchain["torch"])


def test_every_file_is_listed_with_its_hash(compressed: CompressedModel) -> None:
    folder = compressed.bundle.folder
    listed = compressed.bundle.manifest.files
    found = {p.name for p in folder.iterdir()} - {"manifest.json", "manifest.sha256"}
    assert found == set(listed)
    assert {GOLDEN, ENCODINGS} < found
    for name, record in listed.items():
        content = (folder / name).read_bytes()
        assert record.size_bytes == len(content)
        assert record.sha256 == hashlib.sha256(content).hexdigest()
    compressed.bundle.verify()


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("tensorrt")])
def test_golden_vectors_hold_on_the_runtime(compressed: CompressedModel, name: str) -> None:
    bundle = compressed.bundle
    with Runner(bundle, bundle.artifact(name)) as runner:
        assert check_golden(runner).passed


@pytest.mark.parametrize("target", [ORT, TFLITE, TENSORRT])
def test_golden_vectors_are_those_of_the_emitted_graph(
    compressed: CompressedModel, int8_state: ModelState, target: Target
) -> None:
    with np.load(compressed.bundle.folder / GOLDEN) as golden:
        x, found = golden["input/0"], golden[f"{target.name}-int8/0"]
        plain = golden["ort-float32/0"]
    chosen, reach = choose_golden(int8_state.graph, make_subject().task)
    np.testing.assert_array_equal(x, chosen.inputs[0])
    assert compressed.bundle.manifest.golden_reach == reach
    graph = emit(int8_state.quantized.graph, int8_state.quantized.encodings, target)
    np.testing.assert_allclose(found, run_graph(graph, (x,))[0], atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(plain, make_net()(torch.tensor(x)), atol=1e-5)
    assert np.abs(found - plain).max() > 1e-4


@dataclass
class Packed:
    """A run on a network with two inputs and two outputs, and what was seen of it."""

    made: CompressedModel
    subject: Subject
    before: dict[str, Tensor]
    heard: list[str]


def _two_heads() -> TwoInputs:
    torch.manual_seed(4)

    def forward(net: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(net.a(x) + net.b(y))
        return net.fc(h), h.unsqueeze(2)

    return TwoInputs(forward, a=nn.Linear(6, 5), b=nn.Linear(4, 5), fc=nn.Linear(5, 3))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    module = _two_heads()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    subject = Subject("heads", module, noise_task((6,), (4,)), "MIT", "made up")
    heard: list[str] = []
    folder = tmp_path_factory.mktemp("heads")
    made = compress(
        subject, load_recipe("static_w8c_a8"), (ORT,), folder, progress=steps_to(heard.append)
    )
    return Packed(made, subject, before, heard)


def test_the_users_module_is_left_untouched(packed: Packed) -> None:
    after = packed.subject.module.state_dict()
    assert after.keys() == packed.before.keys()
    assert all(torch.equal(after[key], packed.before[key]) for key in after)
    assert all(p.requires_grad and p.grad is None for p in packed.subject.module.parameters())


def test_each_step_is_announced_in_order(packed: Packed) -> None:
    names = ["ort-float32", "ort-float16", "ort-int8"]
    assert packed.heard == [
        "trace",
        "quantize_static",
        *(f"export {name}" for name in names),
        *(f"check {name}" for name in names),
    ]


def test_several_inputs_and_outputs_keep_their_order_and_shapes(packed: Packed) -> None:
    manifest = packed.made.bundle.manifest
    assert [(s.name, s.shape) for s in manifest.inputs] == [
        ("x", (None, 6)),
        ("y", (None, 4)),
    ]
    assert [s.shape for s in manifest.outputs] == [(None, 3), (None, 5, 1)]
    assert (manifest.licence, manifest.data) == ("MIT", "made up")
    (batch,) = packed.subject.task.batches("test", 1000)
    with torch.no_grad():
        expected = packed.subject.module(*(torch.tensor(x) for x in batch.inputs))
    for name, tolerance in (("ort-float32", 1e-4), ("ort-int8", 0.2)):
        with Runner(packed.made.bundle, packed.made.bundle.artifact(name)) as runner:
            for a, b in zip(runner(*batch.inputs), expected, strict=True):
                assert a.shape == tuple(b.shape)
                assert np.abs(a - b.numpy()).max() <= tolerance
            assert check_golden(runner).passed


def test_a_task_without_classes_has_no_agreement_but_has_errors(packed: Packed) -> None:
    for artifact in packed.made.bundle.manifest.artifacts:
        assert artifact.parity.prediction_agreement is None
        assert artifact.parity.samples == 48
        assert artifact.parity.max_abs_error <= max(artifact.golden_tolerances)


def test_a_wrong_score_is_found_beside_a_box_a_thousand_times_larger(tmp_path: Path) -> None:
    net = Net(
        lambda m, x: (m.score(x), 1000 * m.box(x)), score=nn.Linear(6, 3), box=nn.Linear(6, 4)
    ).eval()
    subject = Subject("heads", net, noise_task((6,)))
    made = compress(subject, Recipe("float"), (ORT,), tmp_path, only=(FLOAT32,))
    path = tmp_path / "float32.onnx"
    model = onnx.load(path)
    (weight,) = (t for t in model.graph.initializer if list(t.dims) in ([3, 6], [6, 3]))
    zeros = np.zeros(weight.dims, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(zeros, weight.name))
    onnx.save(model, path)
    files = record_files(tmp_path)
    write_manifest(tmp_path, msgspec.structs.replace(made.bundle.manifest, files=files))
    (artifact,) = made.bundle.manifest.artifacts
    check = check_golden(Runner(Bundle.open(tmp_path), artifact))
    assert not check.passed
    assert check.tolerance < 0.01


def test_a_folder_with_files_of_the_users_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "float32.onnx"
    mine.write_text("mine")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadInputError, match="must be an empty folder"):
            compress(make_subject(), load_recipe("float"), (ORT,), folder)
    assert mine.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [mine]


@pytest.fixture
def no_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the reference only, made in no time."""
    content = network("joined").onnx
    monkeypatch.setattr("edgedl.compress.export.onnx.exporter.to_onnx", lambda *_: content)
    monkeypatch.setattr(ArtifactBuilder, "plan", lambda self, targets: [(ORT, FLOAT32)])


def test_a_runtime_that_is_missing_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_converters: None
) -> None:
    def missing(*_: object) -> None:
        raise BackendUnavailableError("onnxruntime is missing")

    monkeypatch.setattr(check_files, "measure_parity", missing)
    made = compress(make_subject(), load_recipe("float"), (ORT,), tmp_path)
    (artifact,) = made.bundle.manifest.artifacts
    assert isinstance(artifact, Artifact)
    assert artifact.check == "not run: onnxruntime is missing"
    assert artifact.parity is None


def test_stages_are_applied_in_the_order_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_converters: None
) -> None:
    class First(Stage, frozen=True):
        number: int = 1

        def change(self, state: ModelState) -> tuple[ModelState, Found]:
            return state, {"before": len(state.history)}

    class Second(First, frozen=True):
        number: int = 2

    recipe = Recipe("mine", (First(), Second(), First()))
    heard: list[str] = []
    monkeypatch.setattr(check_files, "measure_parity", _unavailable)
    made = compress(make_subject(), recipe, (ORT,), tmp_path, progress=steps_to(heard.append))
    assert heard[:4] == ["trace", "First", "Second", "First"]
    history = Bundle.open(tmp_path).manifest.history
    assert [(e.settings["number"], e.settings["before"]) for e in history] == [
        (1, 0),
        (2, 1),
        (1, 2),
    ]
    assert ENCODINGS not in made.bundle.manifest.files


def _unavailable(*_: object) -> None:
    raise BackendUnavailableError("not here")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda net: net.fc.weight.data.fill_(float("nan")),
        lambda net: net.bn.register_buffer("running_mean", torch.full((8,), float("inf"))),
    ],
)
def test_a_module_that_is_broken_leaves_no_bundle(
    spoil: Callable[[torch.nn.Module], object], tmp_path: Path
) -> None:
    net = make_net()
    spoil(net)
    subject = Subject("broken", net, make_subject().task)
    with pytest.raises(EdgedlError, match="not finite"):
        compress(subject, load_recipe("static_w8c_a8"), (ORT,), tmp_path)
    assert list(tmp_path.iterdir()) == []
