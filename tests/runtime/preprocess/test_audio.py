"""Sound: WAV files of every width, clips, and mel spectrograms against two libraries' own."""

import wave

import msgspec
import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.audio import AudioPreprocessing, LogMel

RATE = 16000
MEL = LogMel(fft=512, window=400, hop=160, bands=40, low_hz=20.0, high_hz=7600.0)


def write_wav(path, sound, width=2, rate=RATE):
    """Write numbers of -1 to 1, [samples] or [samples, channels], with some bytes each."""
    whole = np.clip(np.rint(sound * (1 << (8 * width - 1))), -(1 << 31), (1 << (8 * width - 1)) - 1)
    if width == 1:
        content = (whole + 128).astype(np.uint8).tobytes()
    else:
        wide = whole.astype("<i4").reshape(-1, 1).view(np.uint8)
        content = np.ascontiguousarray(wide[:, :width]).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)
    return path


@pytest.fixture
def sound():
    t = np.arange(RATE) / RATE
    noise = np.random.default_rng(0).normal(0, 0.05, RATE)
    return 0.4 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 3000 * t**2) + noise


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_is_read(tmp_path, sound, width):
    found = AudioPreprocessing(RATE, RATE, RATE).read(write_wav(tmp_path / "a.wav", sound, width))
    assert found.dtype == np.float32
    assert np.abs(found - sound).max() <= 0.5 / (1 << (8 * width - 1)) + 1e-7


def test_channels_are_averaged(tmp_path, sound):
    both = np.stack([sound, 0.5 * sound], 1)
    found = AudioPreprocessing(RATE, RATE, RATE).read(write_wav(tmp_path / "a.wav", both))
    np.testing.assert_allclose(found, 0.75 * sound, atol=1e-4)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("slaney_norm", [False, True])
@pytest.mark.parametrize("log", ["ln", "log10", "db"])
def test_against_transformers(sound, scale, slaney_norm, log):
    mel = msgspec.structs.replace(MEL, scale=scale, slaney_norm=slaney_norm, log=log)
    filters = mel_filter_bank(
        257, 40, 20.0, 7600.0, RATE, norm="slaney" if slaney_norm else None, mel_scale=scale
    )
    expected = spectrogram(
        sound.astype(np.float32), window_function(400, "hann"), 400, 160, 512,
        mel_filters=filters, mel_floor=1e-10, dtype=np.float64, power=2.0,
        log_mel="log10" if log == "log10" else "log",
    )  # fmt: skip
    if log == "db":
        expected *= 10 / np.log(10)
    found = mel.of(sound[None].astype(np.float32), RATE)[0].T
    assert found.shape == expected.shape == (40, 101)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_against_torch(sound):
    x = torch.from_numpy(sound)
    frames = torch.stft(
        x, 512, 160, 400, torch.hann_window(400, dtype=torch.float64), return_complex=True
    )
    expected = torch.log(frames.abs().square().T @ torch.from_numpy(MEL.filters(RATE)))
    found = MEL.of(sound[None].astype(np.float32), RATE)[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_frames_may_begin_at_the_first_sample(sound):
    mel = msgspec.structs.replace(MEL, centred=False, mean=-4.0, std=2.0)
    found = mel.of(sound[None].astype(np.float32), RATE)[0]
    plain = msgspec.structs.replace(MEL, centred=False).of(sound[None].astype(np.float32), RATE)
    assert found.shape == (98, 40)
    np.testing.assert_allclose(found, (plain[0] + 4) / 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "shape"), [("NTM", (101, 40)), ("NMT", (40, 101)), ("N1MT", (1, 40, 101))]
)
def test_layouts(sound, layout, shape):
    found = AudioPreprocessing(RATE, RATE, RATE, MEL, layout)(sound[None].astype(np.float32))
    assert found.shape == (1, *shape)
    frames = AudioPreprocessing(RATE, RATE, RATE, MEL, "NTM")(sound[None].astype(np.float32))
    np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(frames.ravel()))


def test_a_recording_is_cut_into_clips(tmp_path, sound):
    path = write_wav(tmp_path / "a.wav", sound)
    cut = AudioPreprocessing(RATE, 6000, 4000)
    clips, parts = cut.inputs_of(path)
    whole = cut.read(path)
    assert clips[0].shape == (4, 6000)
    assert parts == ("from 0 s", "from 0.25 s", "from 0.5 s", "from 0.75 s")
    np.testing.assert_array_equal(clips[0][1], whole[4000:10000])
    np.testing.assert_array_equal(clips[0][3], np.pad(whole[12000:], (0, 2000)))
    one, parts = AudioPreprocessing(RATE, 2 * RATE, RATE).inputs_of(path)
    assert (one[0].shape, parts) == ((1, 2 * RATE), ())
    exact, _ = AudioPreprocessing(RATE, RATE, 100).inputs_of(path)
    assert exact[0].shape == (1, RATE)


def test_raw_samples_are_what_a_file_is(tmp_path, sound):
    path = write_wav(tmp_path / "a.wav", sound)
    raw = np.clip(np.rint(sound * (1 << 15)), -(1 << 15), (1 << 15) - 1).astype(np.int16)
    cut = AudioPreprocessing(RATE, RATE, RATE, MEL, "N1MT")
    expected = cut.inputs_of(path).arrays[0]
    np.testing.assert_array_equal(cut.from_raw(raw), expected)
    np.testing.assert_array_equal(cut.from_raw(raw[None]), expected)
    assert cut.from_raw(expected) is expected


def test_what_cannot_be_read(tmp_path, refused, sound):
    cut = AudioPreprocessing(RATE, RATE, RATE)
    other = write_wav(tmp_path / "other.wav", sound, rate=44100)
    with refused(BadInputError, "44100 samples a second", "takes 16000", "-ar 16000"):
        cut.read(other)
    (tmp_path / "text.wav").write_text("no sound")
    with refused(BadInputError, "text.wav is not a readable WAV file"):
        cut.read(tmp_path / "text.wav")
    with refused(BadInputError, "empty.wav holds no samples"):
        cut.read(write_wav(tmp_path / "empty.wav", np.zeros(0)))
    short = tmp_path / "short.wav"
    short.write_bytes(other.read_bytes()[:20])
    with refused(BadInputError, "short.wav is not a readable WAV file"):
        cut.read(short)
    wide = bytearray(write_wav(tmp_path / "wide.wav", sound, 4).read_bytes())
    # Block align and bits of a sample in the header: 64 instead of 32 bits.
    wide[32:36] = (8).to_bytes(2, "little") + (64).to_bytes(2, "little")
    (tmp_path / "wide.wav").write_bytes(wide)
    with refused(BadInputError, "wide.wav has samples of 64 bits"):
        cut.read(tmp_path / "wide.wav")
    with refused(BadInputError, "clips must be [N, 16000], got [1, 5]"):
        cut.from_raw(np.zeros((1, 5), np.int16))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 0}, ("at least 1",)),
        ({"layout": "NMT"}, ("does not fit",)),
        ({"features": MEL}, ("does not fit",)),
        ({"features": MEL, "layout": "NTM", "samples": 300}, ("shorter than a window",)),
        ({"features": MEL, "layout": "NTM", "rate_hz": 8000}, ("7600 Hz",)),
    ],
)
def test_settings_that_cannot_be(refused, settings, words):
    with refused(BadInputError, *words):
        AudioPreprocessing(**{"rate_hz": RATE, "samples": RATE, "hop": RATE, **settings})


@pytest.mark.parametrize(
    "settings", [{"hop": 0}, {"fft": 256}, {"low_hz": 8000.0}, {"floor": 0.0}, {"std": 0.0}]
)
def test_features_that_cannot_be(refused, settings):
    with refused(BadInputError):
        msgspec.structs.replace(MEL, **settings)
