"""Basic Pitch: the notes in a recording, from its spectrum on an axis of pitch.

Source: Bittner, Bosch, Rubinstein, Meseguer-Brocal, Ewert, "A lightweight instrument-agnostic
model for polyphonic note transcription and multipitch estimation", 2022 (arXiv:2203.09893),
figure 1; the graph of the package's ONNX file.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.real_networks.network import Made, RealNetwork
from benchmarks.real_networks.onnx_weights import initializers
from benchmarks.real_networks.shelf import PackageShelf
from benchmarks.real_networks.sounds import Waves
from edgedl.models.data.packages import Package

RATE_HZ, SAMPLES = 22050, 43844
BINS, PER_OCTAVE = 264, 36
HARMONICS = (0.5, 1, 2, 3, 4, 5, 6, 7)
# The tensor of the package's file that holds the normalised spectrum [N, 172, 309, 1].
SPECTRUM = "model_1/batch_normalization/FusedBatchNormV3;model_1/batch_normalization/"


class BasicPitch(nn.Module):
    """Contours of pitch, notes and their onsets."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        """Take the weights."""
        super().__init__()
        self.contour1 = _conv(values, "707", "conv2d_4/Conv2D;model_1/conv2d_4/Conv2D")
        self.wide = _conv(values, "727", "conv2d_1/Conv2D;model_1/conv2d_1/Conv2D")
        self.contour = _conv(values, "710", "contours-reduced/BiasAdd/ReadVariableOp")
        self.note1 = _conv(values, "738", "conv2d_2/BiasAdd/ReadVariableOp")
        self.note2 = _conv(values, "702", "conv2d_3/BiasAdd/ReadVariableOp")
        self.onset = _conv(values, "680", "conv2d_5/BiasAdd/ReadVariableOp")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map spectra [N, 172, 309] to onsets and notes [N, 172, 88] and contours [N, 172, 264]."""
        stacked = torch.stack([self._shifted(x, h) for h in HARMONICS], 1)
        y = F.relu(F.conv2d(stacked, self.wide.weight, self.wide.bias, padding=(1, 19)))
        contours = torch.sigmoid(_same(self.contour, y, (2, 2, 2, 2)))
        y = F.relu(_same(self.note1, contours, (2, 2, 3, 3), 3))
        notes = torch.sigmoid(_same(self.note2, y, (1, 1, 3, 3)))
        y = F.relu(_same(self.contour1, stacked, (1, 1, 2, 2), 3))
        onsets = torch.sigmoid(_same(self.onset, torch.cat([notes, y], 1), (1, 1, 1, 1)))
        return onsets.squeeze(1), notes.squeeze(1), contours.squeeze(1)

    @staticmethod
    def _shifted(x: Tensor, harmonic: float) -> Tensor:
        """Return a spectrum whose harmonic of every pitch stands at the pitch."""
        shift = round(PER_OCTAVE * float(np.log2(harmonic)))
        x = x[:, :, shift:] if shift > 0 else F.pad(x, (-shift, 0))
        return F.pad(x, (0, BINS - x.shape[2]))[:, :, :BINS] if x.shape[2] < BINS else x[..., :BINS]


def _conv(values: dict[str, Tensor], weight: str, bias: str) -> nn.Conv2d:
    weights = values[f"const_fold_opt__{weight}"]
    after, before, height, width = weights.shape
    layer = nn.Conv2d(before, after, (height, width))
    layer.weight = nn.Parameter(weights)
    found = [v for k, v in values.items() if k.endswith(bias) and v.shape == (len(weights),)]
    layer.bias = nn.Parameter(found[0])
    return layer


def _same(layer: nn.Conv2d, x: Tensor, pads: tuple[int, ...], stride: int = 1) -> Tensor:
    return F.conv2d(F.pad(x, pads), layer.weight, layer.bias, (1, stride))


def chords(count: int, seed: int) -> Waves:
    """Return plucked notes of one to four pitches at a time: [count, samples]."""
    rng = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / RATE_HZ
    found = np.zeros((count, SAMPLES))
    for x in found:
        for start in np.sort(rng.uniform(0, 1.8, 5)):
            since = np.maximum(time - start, 0)
            for key in rng.integers(40, 80, rng.integers(1, 5)):
                pitch_hz = 440 * 2 ** ((key - 69) / 12)
                decay = np.exp(-since * rng.uniform(2, 6)) * (time >= start)
                for k in range(1, 8):
                    x += decay * np.sin(2 * np.pi * k * pitch_hz * since) / k**1.5
        x *= 0.3 / np.abs(x).max()
        x += rng.standard_normal(SAMPLES) * 1e-3
    return found.astype(np.float32)


def spectra(weights: Path, sounds: Waves) -> Waves:
    """Return the spectra [N, 172, 309] that the package's own file computes."""
    import onnx
    import onnxruntime

    model = onnx.load(str(weights))
    (name,) = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Add" and node.output[0].startswith("model_1/batch_normalization")
    }
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectrum.onnx"
        onnx.save(model, str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feeds = ({session.get_inputs()[0].name: x[None, :, None]} for x in sounds)
        found = [np.asarray(session.run([name], feed)[0]) for feed in feeds]
    return np.concatenate(found).reshape(len(sounds), 172, -1)


def make_basic_pitch(weights: Path, shelf: PackageShelf) -> Made:
    """Return Basic Pitch and the spectra of chords."""
    net = BasicPitch(initializers(weights))
    return Made(net, (spectra(weights, chords(16, 0)),), (spectra(weights, chords(16, 1)),))


NETWORKS = (
    RealNetwork(
        "basic-pitch",
        "music",
        Package(
            "pip",
            "basic-pitch",
            "0.4.0",
            "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        ),
        "Apache-2.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
        "plucked chords, computed",
        make_basic_pitch,
    ),
)
