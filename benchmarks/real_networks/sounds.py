"""Recorded speech, and what speech networks are fed with."""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package

# Prompts of a telephone exchange, read by one speaker: 8 kHz, 16 bits. CC-BY-SA-3.0.
SPEECH = Package(
    "apt-get",
    "asterisk-core-sounds-en-wav",
    "1.6.1-1",
    "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
)
SPEECH_DATA = "recorded telephone prompts (asterisk-core-sounds-en-wav, CC-BY-SA-3.0)"
RECORDED_HZ = 8000
Waves = npt.NDArray[np.float32]


def speech(shelf: PackageShelf, rate_hz: int, seconds: float, first: int) -> Waves:
    """Return every second prompt, one after the other, of so many seconds altogether.

    Args:
        shelf: has the recordings.
        rate_hz: wanted; the recordings hold nothing above 4 kHz.
        seconds: to return at most.
        first: 0 or 1: which half of the prompts.

    Returns:
        float32 [samples] in -1..1.
    """
    found: list[Waves] = []
    length = 0
    for path in sorted(shelf.root(SPEECH).rglob("*.wav"))[first::2]:
        found.append(resample(read_wave(path), rate_hz / RECORDED_HZ))
        length += len(found[-1])
        if length >= seconds * rate_hz:
            break
    signal: Waves = np.concatenate(found)[: int(seconds * rate_hz)]
    return signal


def read_wave(path: Path) -> Waves:
    """Return a file of one channel of 16 bits: float32 [samples] in -1..1."""
    with wave.open(str(path)) as file:
        content = file.readframes(file.getnframes())
    return np.asarray(np.frombuffer(content, "<i2") / 32768, np.float32)


def resample(x: Waves, ratio: float) -> Waves:
    """Return a signal at another rate, by its spectrum.

    >>> resample(np.array([1, -1, 1, -1, 1, -1], np.float32), 1.0).round(3).tolist()
    [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    """
    length = round(len(x) * ratio)
    return np.asarray(np.fft.irfft(np.fft.rfft(x), length) * ratio, np.float32)


def frames(x: Waves, length: int, hop: int) -> Waves:
    """Return windows of a signal: [N, length].

    >>> frames(np.arange(5, dtype=np.float32), 3, 2).tolist()
    [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
    """
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(x, length)[::hop])


def loud(windows: Waves, count: int) -> Waves:
    """Return ``count`` windows spread over those that are not silent, [count, length]."""
    size = np.sqrt(np.square(windows).mean(1))
    kept = windows[size > 0.02]
    chosen: Waves = kept[np.linspace(0, len(kept) - 1, count).astype(int)]
    return chosen


def power_spectra(x: Waves, length: int, hop: int, window: npt.NDArray[np.float64]) -> Waves:
    """Return the power of every frame of a signal: [frames, length // 2 + 1]."""
    spectrum = np.fft.rfft(frames(x, length, hop) * window, axis=1)
    return np.square(np.abs(spectrum)).astype(np.float32)


def mel_filters(count: int, length: int, rate_hz: int) -> npt.NDArray[np.float64]:
    """Return triangles of equal area on Slaney's mel scale, [count, length // 2 + 1].

    Source: Slaney, "Auditory Toolbox, version 2", Interval Research technical report 1998-010.
    """
    linear, step = 200 / 3, np.log(6.4) / 27

    def to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(mel < 15, linear * mel, 1000 * np.exp(step * (mel - 15)))

    top = 15 + np.log(rate_hz / 2 / 1000) / step
    ends = to_hz(np.linspace(0, top, count + 2))
    places = np.linspace(0, rate_hz / 2, length // 2 + 1)
    rising = (places - ends[:-2, None]) / np.diff(ends)[:-1, None]
    falling = (ends[2:, None] - places) / np.diff(ends)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (ends[2:] - ends[:-2]))[:, None])
