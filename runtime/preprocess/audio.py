"""Sound as data: clips of one length, as samples or as the logarithms of a mel spectrogram."""

import wave
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.reading import Array, Reading
from edgedl.runtime.wording import counted

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
# Of a sample in a WAV file.
MOST_BYTES = 4
# Of the Slaney scale: linear up to this frequency, logarithmic above.
CORNER_HZ, LINEAR_HZ, LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27


class LogMel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The logarithm of the power in mel bands: [frames, bands] of each clip.

    Attributes:
        fft: length of the Fourier transform in samples; a longer one than ``window`` is filled with
            zeros.
        window: length of the Hann window in samples.
        hop: samples from one frame to the next.
        bands: how many.
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends.
        scale: "htk", ``2595 log10(1 + f / 700)``, or "slaney", linear up to 1 kHz.
        slaney_norm: whether each band is divided by its width.
        centred: whether the first frame lies around the first sample, and the clip is reflected at
            its ends; else the first frame begins there.
        floor: least power of a band.
        log: "ln", "log10", or "db" (10 log10).
        mean: subtracted from the logarithms.
        std: divided by after that.
    """

    fft: int
    window: int
    hop: int
    bands: int
    low_hz: float
    high_hz: float
    scale: Literal["htk", "slaney"] = "htk"
    slaney_norm: bool = False
    centred: bool = True
    floor: float = 1e-10
    log: Literal["ln", "log10", "db"] = "ln"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        """Reject sizes that cannot be applied."""
        if min(self.window, self.hop, self.bands) < 1 or self.fft < self.window:
            raise BadInputError(
                "window, hop and bands must be at least 1 and fft at least window, got "
                f"{self.window}, {self.hop}, {self.bands} and {self.fft}"
            )
        if not 0 <= self.low_hz < self.high_hz:
            raise BadInputError(
                f"the bands must go up from 0 Hz or more, got {self.low_hz} to {self.high_hz}"
            )
        if self.floor <= 0 or self.std == 0:
            raise BadInputError(f"floor must be above 0 and std not 0: {self.floor}, {self.std}")

    def of(self, clips: Floats, rate_hz: int) -> Floats:
        """Return the logarithms of clips [N, samples] -> [N, frames, bands].

        Computed in float64 and rounded once, so that every machine gives the same numbers.
        """
        x = clips.astype(np.float64)
        if self.centred:
            half = self.window // 2
            x = np.pad(x, ((0, 0), (half, half)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(x, self.window, axis=1)[:, :: self.hop]
        # The periodic window: its next sample would be the first one again.
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        power = np.abs(np.fft.rfft(frames * hann, self.fft, axis=2)) ** 2
        bands = np.maximum(power @ self.filters(rate_hz), self.floor)
        logs = np.log(bands) if self.log == "ln" else np.log10(bands)
        if self.log == "db":
            logs *= 10
        return ((logs - self.mean) / self.std).astype(np.float32)

    def filters(self, rate_hz: int) -> Doubles:
        """Return triangles over the frequencies: [fft / 2 + 1, bands]."""
        lowest, highest = self._to_mel(np.array([self.low_hz, self.high_hz]))
        corners = self._to_hz(np.linspace(lowest, highest, self.bands + 2))
        frequencies = np.fft.rfftfreq(self.fft, 1 / rate_hz)[:, None]
        low, middle, high = corners[:-2], corners[1:-1], corners[2:]
        rising = (frequencies - low) / (middle - low)
        falling = (high - frequencies) / (high - middle)
        triangles = np.maximum(0, np.minimum(rising, falling))
        return triangles * (2 / (high - low)) if self.slaney_norm else triangles

    def _to_mel(self, hz: Doubles) -> Doubles:
        if self.scale == "htk":
            return 2595 * np.log10(1 + hz / 700)
        above = CORNER_HZ / LINEAR_HZ + np.log(np.maximum(hz, CORNER_HZ) / CORNER_HZ) / LOG_STEP
        return np.where(hz < CORNER_HZ, hz / LINEAR_HZ, above)

    def _to_hz(self, mel: Doubles) -> Doubles:
        if self.scale == "htk":
            return 700 * (10 ** (mel / 2595) - 1)
        corner = CORNER_HZ / LINEAR_HZ
        above = CORNER_HZ * np.exp(LOG_STEP * (np.maximum(mel, corner) - corner))
        return np.where(mel < corner, mel * LINEAR_HZ, above)


class AudioPreprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="audio"):
    """Turns recordings into clips of one length.

    Attributes:
        rate_hz: samples per second that the network was trained on; files of another are refused.
        samples: of a clip. A shorter recording is filled with zeros at its end, a longer one cut.
        hop: samples from the start of one clip to the start of the next.
        features: None for the samples themselves, -1 to 1.
        layout: of the input: "NT" of samples; of features "NTM" (frames, bands), "NMT", or "N1MT"
            with one channel, as a picture.
    """

    rate_hz: int
    samples: int
    hop: int
    features: LogMel | None = None
    layout: Literal["NT", "NTM", "NMT", "N1MT"] = "NT"

    takes: ClassVar[str] = "sound files"
    suffixes: ClassVar[tuple[str, ...]] = (".wav",)

    def __post_init__(self) -> None:
        """Reject sizes that cannot be applied."""
        if min(self.rate_hz, self.samples, self.hop) < 1:
            raise BadInputError(
                "rate_hz, samples and hop must be at least 1, got "
                f"{self.rate_hz}, {self.samples}, {self.hop}"
            )
        if (self.features is None) != (self.layout == "NT"):
            raise BadInputError(f"layout '{self.layout}' does not fit features {self.features}")
        if self.features is None:
            return
        if self.samples < self.features.window:
            raise BadInputError(
                f"a clip of {self.samples} samples is shorter than a window of "
                f"{self.features.window}"
            )
        if self.features.high_hz > self.rate_hz / 2:
            raise BadInputError(
                f"bands up to {self.features.high_hz:g} Hz need more than {self.rate_hz} samples "
                "a second"
            )

    def __call__(self, clips: Floats) -> Floats:
        """Map clips, float32 [N, samples] of -1 to 1, to the network's input.

        Raises:
            BadInputError: they have another length.
        """
        if clips.ndim != 2 or clips.shape[1] != self.samples:
            raise BadInputError(f"clips must be [N, {self.samples}], got {list(clips.shape)}")
        if self.features is None:
            return np.asarray(clips, np.float32)
        logs = self.features.of(clips, self.rate_hz)
        if self.layout != "NTM":
            logs = logs.transpose(0, 2, 1)
        return np.ascontiguousarray(logs[:, None] if self.layout == "N1MT" else logs)

    def inputs_of(self, path: Path) -> Reading:
        """Read the clips of a WAV file.

        Raises:
            BadInputError: it is no WAV file of integers, or of another rate.
        """
        sound = self.read(path)
        count = 1 + max(0, -(-(len(sound) - self.samples) // self.hop))
        starts = [i * self.hop for i in range(count)]
        padded = np.pad(sound, (0, starts[-1] + self.samples - len(sound)))
        clips = np.stack([padded[start : start + self.samples] for start in starts])
        parts = tuple(f"from {start / self.rate_hz:g} s" for start in starts)
        return Reading((self(clips),), parts if count > 1 else ())

    def from_raw(self, x: Array) -> Array:
        """Map 16-bit samples [N, samples], or of one clip [samples], to the network's input.

        Raises:
            BadInputError: they have another length.
        """
        if x.dtype != np.int16:
            return x
        return self(np.atleast_2d(x).astype(np.float32) / np.float32(1 << 15))

    def read(self, path: Path) -> Floats:
        """Read a WAV file as float32 [samples] of -1 to 1, the mean of its channels.

        Raises:
            BadInputError: it is no WAV file of integers, of another rate, or empty.
        """
        try:
            with wave.open(str(path), "rb") as file:
                rate, width, channels = (
                    file.getframerate(), file.getsampwidth(), file.getnchannels(),
                )  # fmt: skip
                content = file.readframes(file.getnframes())
        except (OSError, EOFError, wave.Error) as error:
            why = str(error) or "it is cut short"
            raise BadInputError(f"{path} is not a readable WAV file ({why})") from error
        if rate != self.rate_hz:
            raise BadInputError(
                f"{path} has {counted(rate, 'sample')} a second, the network takes {self.rate_hz}: "
                f"convert it, for example with 'ffmpeg -i {path.name} -ar {self.rate_hz} new.wav'"
            )
        if not 1 <= width <= MOST_BYTES:
            raise BadInputError(f"{path} has samples of {8 * width} bits, at most 32 are read")
        whole = len(content) // (width * channels) * width * channels
        if whole == 0:
            raise BadInputError(f"{path} holds no samples")
        sound: Doubles = _integers(content[:whole], width).reshape(-1, channels).mean(1, np.float64)
        return sound.astype(np.float32)


def _integers(content: bytes, width: int) -> Doubles:
    """Return samples of 1 to 4 bytes as numbers of -1 to 1."""
    if width == 1:
        # The only width that is stored without a sign.
        return (np.frombuffer(content, np.uint8).astype(np.float64) - 128) / 128
    # Each is moved to the upper bytes of 32 bits.
    wide = np.zeros((len(content) // width, 4), np.uint8)
    wide[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
    return wide.view("<i4")[:, 0] / float(1 << 31)
