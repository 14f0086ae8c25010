"""Which files are planned, what they are held against, and refusals that stop nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from listening import steps_to
from small_networks import Net, noise, noise_task
from torch import Tensor, nn

from edgedl.compress.artifacts.build import ArtifactBuilder, BuiltArtifact, Refusal
from edgedl.compress.artifacts.tolerance import (
    allowed_differences,
    output_steps,
    rounding_noise,
)
from edgedl.compress.encodings.affine import affine_for
from edgedl.compress.encodings.emit import emit
from edgedl.compress.errors import ExportError
from edgedl.compress.export.exporter import FileSource, Verdict
from edgedl.compress.graph.run import run_graph
from edgedl.compress.graph.trace import trace
from edgedl.compress.quantize.static import QuantizeStatic
from edgedl.compress.state import ModelState, begin
from edgedl.compress.subject.subject import Subject
from edgedl.compress.targets.named import ORT, ORT_AVX2, TENSORRT, TFLITE
from edgedl.compress.targets.target import Target
from edgedl.runtime.bundle.manifest import TensorSpec
from edgedl.runtime.precision import BFLOAT16, FLOAT16, FLOAT32, INT8

EXPORT = "edgedl.compress.export"
CONVERTERS = {
    "to_onnx": "onnx",
    "to_tflite": "tflite",
    "to_tflite_int16": "tflite",
    "to_float16_weights": "tflite",
}
SPECS = ((TensorSpec("x", (None, 3, 12, 12), "float32"),), (TensorSpec("y", (None, 4), "float32"),))


def refuse(*_: object, **__: object) -> bytes:
    raise ExportError("no such operator")


@pytest.fixture
def converters(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the converters by ones that take no time; return what they were asked for."""
    asked: list[str] = []

    def convert(kind: str) -> Callable[..., bytes]:
        def answer(*_: object, **__: object) -> bytes:
            asked.append(kind)
            # No two files are the same.
            return f"{kind} {len(asked)}".encode()

        return answer

    for name, room in CONVERTERS.items():
        monkeypatch.setattr(f"{EXPORT}.{room}.exporter.{name}", convert(name))
    for name, room in (("describe_onnx", "onnx"), ("describe_tflite", "tflite")):
        monkeypatch.setattr(f"{EXPORT}.{room}.exporter.{name}", lambda content: SPECS)
    monkeypatch.setattr(f"{EXPORT}.tensorrt.exporter.fold_padding", lambda model: model)
    checker = f"{EXPORT}.tensorrt.exporter.check_tensorrt"
    monkeypatch.setattr(checker, lambda _: Verdict("nobody", True, ""))
    return asked


def build(state: ModelState, *targets: Target) -> dict[str, BuiltArtifact | Refusal]:
    items = ArtifactBuilder(state).build(targets)
    return {(i.name if isinstance(i, Refusal) else i.artifact.name): i for i in items}


def test_the_plan_starts_with_the_reference(int8_state: ModelState) -> None:
    plan = ArtifactBuilder(int8_state).plan((TFLITE, TENSORRT))
    assert plan == [
        (ORT, FLOAT32),
        *(
            (target, precision)
            for target in (TFLITE, TENSORRT)
            for precision in (FLOAT32, FLOAT16, BFLOAT16, INT8)
            if (target, precision) != (TFLITE, BFLOAT16)
        ),
    ]
    assert ArtifactBuilder(int8_state).plan((ORT,)) == [
        (ORT, FLOAT32),
        (ORT, FLOAT16),
        (ORT, INT8),
    ]


def test_without_a_table_nothing_is_int8(float_state: ModelState) -> None:
    plan = ArtifactBuilder(float_state).plan((ORT, TFLITE))
    assert {precision for _, precision in plan} == {FLOAT32, FLOAT16}


def test_every_planned_artifact_is_announced_and_made(
    int8_state: ModelState, converters: list[str]
) -> None:
    heard: list[str] = []
    builder = ArtifactBuilder(int8_state)
    items = list(builder.build((ORT, TFLITE, TENSORRT), steps_to(heard.append)))
    names = [
        target.artifact_name(precision)
        for target, precision in builder.plan((ORT, TFLITE, TENSORRT))
    ]
    assert heard == [f"export {name}" for name in names]
    assert [i.artifact.name for i in items] == names
    # Files that two artifacts share are converted once: 3 float and 2 int8 ONNX files.
    assert sorted(converters) == ["to_float16_weights", *["to_onnx"] * 5, *["to_tflite"] * 2]
    paths = {i.artifact.name: i.artifact.path for i in items}
    assert paths["ort-float16"] == paths["tensorrt-float16"] == "float16.onnx"
    assert len(set(paths.values())) == 8


def test_sixteen_bits_are_for_tflite_alone(float_state: ModelState, converters: list[str]) -> None:
    state = QuantizeStatic(samples=16, activation_bits=16).apply(float_state)
    items = build(state, ORT, ORT_AVX2, TFLITE, TENSORRT)
    refused = {name: i.reason for name, i in items.items() if isinstance(i, Refusal)}
    runtimes = {"ort": "ONNX Runtime", "ort_avx2": "ONNX Runtime", "tensorrt": "TensorRT"}
    assert refused == {
        f"{target}-int8_int16": f"{name} has no kernels with 16-bit activations"
        for target, name in runtimes.items()
    }
    made = items["tflite-int8_int16"]
    assert isinstance(made, BuiltArtifact)
    assert made.artifact.path == "int8_int16.tflite"
    assert made.content.startswith(b"to_tflite_int16")
    assert not any(name.endswith("-int8") for name in items)


@pytest.mark.parametrize(
    ("converter", "lost"),
    [
        ("to_tflite", {"tflite-float32", "tflite-float16", "tflite-int8"}),
        ("to_float16_weights", {"tflite-float16"}),
        ("to_float16", {"ort-float16", "tensorrt-float16"}),
    ],
)
def test_a_refusal_costs_only_what_needed_that_converter(
    int8_state: ModelState,
    converters: list[str],
    monkeypatch: pytest.MonkeyPatch,
    converter: str,
    lost: set[str],
) -> None:
    room = CONVERTERS.get(converter, "onnx")
    monkeypatch.setattr(f"{EXPORT}.{room}.exporter.{converter}", refuse)
    items = build(int8_state, ORT, TFLITE, TENSORRT)
    refusals = {name: i for name, i in items.items() if isinstance(i, Refusal)}
    assert set(refusals) == lost
    assert {r.reason for r in refusals.values()} == {"no such operator"}
    assert len(items) == 10


def test_what_tensorrt_refuses_is_not_put_into_the_bundle(
    int8_state: ModelState, converters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict("the builder", False, "no kernel")
    monkeypatch.setattr(f"{EXPORT}.tensorrt.exporter.check_tensorrt", lambda _: verdict)
    items = build(int8_state, ORT, TENSORRT)
    refused = [i for i in items.values() if isinstance(i, Refusal)]
    assert [r.name.split("-")[0] for r in refused] == ["tensorrt"] * 4
    assert all("refused (no kernel) by the builder" in r.reason for r in refused)


def test_the_reference_is_refused_like_any_other(
    int8_state: ModelState, converters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{EXPORT}.onnx.exporter.to_onnx", refuse)
    items = build(int8_state, TFLITE)
    assert isinstance(items["ort-float32"], Refusal)
    assert items["ort-float32"].reason == "no such operator"
    made = {name for name, item in items.items() if isinstance(item, BuiltArtifact)}
    assert made == {"tflite-float32", "tflite-float16", "tflite-int8"}


def test_an_error_that_nobody_foresaw_costs_one_file(
    int8_state: ModelState, converters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(f"{EXPORT}.tflite.exporter.to_float16_weights", fail)
    items = build(int8_state, TFLITE)
    refused = {name: i.reason for name, i in items.items() if isinstance(i, Refusal)}
    assert refused == {"tflite-float16": "IndexError: tuple index out of range"}


def test_an_overflow_in_half_precision_is_a_refusal(converters: list[str]) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.fc((1e3 * x) ** 2) / 1e5

    subject = Subject("large", Net(forward, fc=nn.Linear(6, 2)), noise_task((6,)))
    state = begin(subject)
    items = build(state, ORT)
    assert isinstance(items["ort-float32"], BuiltArtifact)
    assert items["ort-float16"] == Refusal(
        "ort-float16", "ort-float16 computes values that are not finite"
    )


class Chaotic(nn.Module):
    """Forty layers that pass rounding errors on undamped, as deep networks do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(40))
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=1.6)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x.mean((2, 3))


def test_rounding_noise_is_nothing_in_a_float_graph_and_whole_steps_in_a_quantized_one() -> None:
    x = noise(2, 8, 6, 6)
    task = noise_task((8, 6, 6))
    net = Chaotic().eval()
    graph = trace(net, (x,))
    assert rounding_noise(graph, (x.numpy(),))[0] < 1e-4 * float(net(x).detach().abs().max())
    state = QuantizeStatic(samples=16).apply(ModelState(Subject("chaotic", net, task), graph))
    step = max(output_steps(state, ORT))
    (found,) = rounding_noise(emit(graph, state.quantized.encodings, ORT), (x.numpy(),))
    assert found == pytest.approx(step * round(found / step), abs=step / 100)


def test_tolerances_are_steps_for_int8_and_shares_of_the_output_for_floats(
    int8_state: ModelState, converters: list[str]
) -> None:
    items = build(int8_state, ORT, TENSORRT)
    tolerance = {name: i.artifact.golden_tolerances for name, i in items.items()}
    ranges = int8_state.quantized.encodings.activations
    for target in (ORT, TENSORRT):
        step = affine_for(ranges["linear"], target).scale
        assert output_steps(int8_state, target) == [step]
        assert tolerance[f"{target.name}-int8"] == pytest.approx((3.0 * step,), rel=1e-3)
    (x,) = int8_state.subject.example_inputs()
    with torch.no_grad():
        largest = float(int8_state.subject.module(x).abs().max())
    assert tolerance["ort-float32"] == pytest.approx((1e-3 * largest,), rel=1e-4)
    assert tolerance["ort-float16"] == pytest.approx((2e-2 * largest,), rel=1e-2)


def test_every_output_has_a_tolerance_of_its_own() -> None:
    """A score beside a box a thousand times larger must be right, too."""
    net = Net(
        lambda m, x: (m.score(x.mean((2, 3))), 1000 * m.box(x.mean((2, 3)))),
        score=nn.Linear(3, 2),
        box=nn.Linear(3, 4),
    ).eval()
    state = QuantizeStatic().apply(begin(Subject("heads", net, noise_task((3, 8, 8)))))
    (x,) = state.subject.example_inputs()
    with torch.no_grad():
        largest = [float(y.abs().max()) for y in net(x)]
    assert largest[1] > 100 * largest[0]
    for target in (ORT, TFLITE):
        emitted = emit(state.quantized.graph, state.quantized.encodings, target)
        steps = output_steps(state, target)
        found = allowed_differences(FileSource(state), emitted, target, INT8)
        assert found == pytest.approx([3.0 * step for step in steps], rel=1e-2)
    for precision, share in ((FLOAT32, 1e-3), (FLOAT16, 2e-2)):
        allowed = allowed_differences(FileSource(state), state.graph, ORT, precision)
        assert allowed == pytest.approx([share * size for size in largest], rel=0.2)


def test_a_small_difference_of_large_values_may_err_as_they_do() -> None:
    net = Net(lambda m, x: m.a(x) - m.b(x), a=nn.Linear(64, 4), b=nn.Linear(64, 4)).eval()
    with torch.no_grad():
        net.a.weight.mul_(1e4)
        net.b.weight.copy_(net.a.weight)
    state = begin(Subject("cancels", net, noise_task((64,))))
    (x,) = state.subject.example_inputs()
    (allowed,) = allowed_differences(FileSource(state), state.graph, ORT, FLOAT32)
    (noise,) = rounding_noise(state.graph, (x.numpy(),))
    # What is left is the biases' difference; its last digits are those of the large values.
    assert allowed >= 1e-3 * float(net(x).abs().max())
    (half,) = allowed_differences(FileSource(state), state.graph, ORT, FLOAT16)
    assert half >= 2**13 * noise


@pytest.mark.parametrize(
    ("forward", "share"),
    [
        pytest.param(lambda m, x: m.a((x >= 0.3).float()), 0.16, id="spikes"),
        pytest.param(lambda m, x: m.a(torch.round(4 * x)), 0.16, id="rounds"),
        pytest.param(lambda m, x: m.a(x), 1e-3, id="no jump"),
        # Whole numbers are on one side of a threshold or the other, whatever floats do.
        pytest.param(lambda m, x: m.a(x * (m.places > 5).float()), 1e-3, id="whole numbers"),
    ],
)
def test_a_network_with_thresholds_may_err_by_a_step(forward, share: float) -> None:
    net = Net(forward, a=nn.Linear(64, 4)).eval()
    net.register_buffer("places", torch.arange(64))
    state = begin(Subject("jumps", net, noise_task((64,))))
    (x,) = state.subject.example_inputs()
    for precision in (FLOAT32, BFLOAT16):
        (allowed,) = allowed_differences(FileSource(state), state.graph, ORT, precision)
        largest = float(net(x).abs().max())
        assert allowed == pytest.approx(max(share, precision.tolerance) * largest, rel=1e-5)


def test_each_file_is_held_against_the_graph_it_was_made_from(
    int8_state: ModelState, converters: list[str]
) -> None:
    items = build(int8_state, ORT, TFLITE)
    x = (noise(3, 3, 12, 12).numpy(),)
    outputs = {name: run_graph(i.graph, x)[0] for name, i in items.items()}
    plain = run_graph(int8_state.graph, x)[0]
    assert np.array_equal(outputs["ort-float32"], plain)
    # TFLite's float16 file only stores half the bits: it computes in float32.
    assert np.array_equal(outputs["tflite-float16"], plain)
    assert 0 < np.abs(outputs["ort-float16"] - plain).max() < 0.01
    step = output_steps(int8_state, ORT)[0]
    integers = outputs["ort-int8"] / step
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-3)


def test_outputs_without_a_table_have_no_steps(float_state: ModelState) -> None:
    assert output_steps(float_state, ORT) == []
