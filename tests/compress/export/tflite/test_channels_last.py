"""TFLite files of pictures take and give channels last, and compute what they computed before."""

from pathlib import Path

import numpy as np
import pytest
from file_readers import TFLiteFile
from small_networks import Net, Quantized, network, noise
from torch import nn

from edgedl.compress.encodings.placement import float_islands
from edgedl.compress.export.tflite.file import TfliteFile
from edgedl.compress.export.tflite.interface import LAYOUTS, describe_tflite
from edgedl.compress.export.tflite.quantizer import to_dynamic_int8, to_float16_weights
from edgedl.compress.export.tflite.write import to_tflite
from edgedl.compress.graph.pictures import NO_PICTURES, Pictures
from edgedl.compress.pipeline import CompressedModel
from edgedl.compress.targets.named import TFLITE
from edgedl.runtime.bundle.manifest import SCHEMA_VERSION
from edgedl.runtime.errors import BadInputError


def last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def converted(net: Quantized, quantized: bool, pictures: Pictures) -> bytes:
    graph = net.emitted(TFLITE) if quantized else net.graph
    islands = quantized and bool(float_islands(net.graph.graph, net.encodings))
    return to_tflite(graph, net.inputs, quantized, islands, pictures=pictures)


def segments() -> Quantized:
    """Normalise, halve, restore; the classes of every pixel add up to one."""

    def forward(m: Net, x):
        y = m.first((x - 0.45) / 0.22).relu()
        y = nn.functional.interpolate(y, scale_factor=2.0, mode="bilinear")
        return m.head(y).softmax(1)

    net = Net(forward, first=nn.Conv2d(3, 8, 3, 2, 1), head=nn.Conv2d(8, 5, 1)).eval()
    return Quantized(net, (noise(6, 3, 12, 12),))


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("make", [segments, lambda: network("two_heads")], ids=["maps", "two"])
def test_the_numbers_are_those_of_the_other_layout(make, quantized) -> None:
    net = make()
    pictures = Pictures.of(net.graph)
    before, after = (TFLiteFile(converted(net, quantized, p)) for p in (NO_PICTURES, pictures))
    given = [last(x) if i in pictures.inputs else x for i, x in enumerate(net.arrays)]
    expected = before.run(net.arrays)
    for i, (a, b) in enumerate(zip(after.run(tuple(given)), expected, strict=True)):
        wanted = last(b) if i in pictures.outputs else b
        assert a.shape == wanted.shape
        # The order of sums in float kernels may differ; integers may not.
        np.testing.assert_allclose(a, wanted, atol=0 if quantized else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
def test_no_transposition_is_left(quantized) -> None:
    net = segments()
    model = converted(net, quantized, Pictures.of(net.graph))
    assert not TFLiteFile(model, xnnpack=False).operators["TRANSPOSE"]
    assert TFLiteFile(converted(net, quantized, NO_PICTURES), xnnpack=False).operators["TRANSPOSE"]


@pytest.mark.slow
def test_the_file_says_its_layout_and_the_quantizer_keeps_it() -> None:
    net = network("two_heads")
    float32 = converted(net, False, Pictures.of(net.graph))
    for model in (float32, to_float16_weights(float32), to_dynamic_int8(float32)):
        (picture, series), (scores, maps) = describe_tflite(model)
        assert (picture.layout, series.layout) == ("NHWC", None)
        assert (scores.layout, maps.layout) == (None, "NHWC")
        assert picture.shape == (1, 6, 6, 3)
        assert picture.network_shape == (1, 3, 6, 6)


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"x": "HWC"}'])
def test_damaged_layouts_are_refused(compressed: CompressedModel, content: bytes) -> None:
    file = TfliteFile(compressed.bundle.read(compressed.bundle.artifact("tflite-float32").path))
    file.model.metadata = []
    file.add_metadata(LAYOUTS, content)
    with pytest.raises(BadInputError, match=r"metadata .* are damaged"):
        describe_tflite(file.pack())


def test_bundles_say_it_and_the_runner_hides_it(compressed: CompressedModel) -> None:
    manifest = compressed.bundle.manifest
    for artifact in manifest.artifacts:
        wanted = "NHWC" if artifact.backend == "tflite" else None
        assert {spec.layout for spec in artifact.inputs} == {wanted}
        assert artifact.inputs[0].network_shape[1:] == manifest.inputs[0].shape[1:]
    assert manifest.schema_version == SCHEMA_VERSION
    assert Path(compressed.bundle.folder, "manifest.json").read_text().count("NHWC")
