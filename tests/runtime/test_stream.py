"""Streams: what is dropped, in which order answers come, what ends them."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import Run, assert_one_line

from edgedl.compress.pipeline import CompressedModel
from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.runner import Runner
from edgedl.runtime.stream import SourceStalledError, Stream
from edgedl.runtime.task.video import read_video

NAME = "ort-float32"


class Source:
    """Gives numbers when it is told to."""

    def __init__(self, count: int) -> None:
        self.count, self.given = count, 0
        self.go = threading.Semaphore(0)

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.go.acquire()
            self.given = number + 1
            yield number

    def give(self, count: int) -> None:
        """Let so many come, and wait until the reader has asked for the next one."""
        wanted = self.given + count
        for _ in range(count):
            self.go.release()
        while self.given < wanted:
            time.sleep(0.001)
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("drop", "answered", "dropped"),
    [("wait", list(range(8)), 0), ("oldest", [0, 6, 7], 5), ("latest", [0, 1, 2], 5)],
)
def test_what_comes_while_the_network_computes(
    drop: str, answered: list[int], dropped: int
) -> None:
    source = Source(8)

    def compute(number: int) -> int:
        if number == 0:
            # Of seven more two can wait.
            if drop == "wait":
                for _ in range(7):
                    source.go.release()
            else:
                source.give(7)
        return 10 * number

    source.go.release()
    found = list(Stream(source, drop).answers(compute))
    assert [streamed.index for streamed in found] == answered
    assert [streamed.item for streamed in found] == answered
    assert [streamed.answer for streamed in found] == [10 * i for i in answered]
    assert found[-1].dropped == dropped
    assert all(streamed.latency_ms >= 0 for streamed in found)


def test_a_source_that_waits_is_not_read_ahead() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(50):
            read.append(number)
            yield number

    for streamed in Stream(source()).answers(lambda number: number):
        time.sleep(0.002)
        # One is computed, two wait, one is in the reader's hand.
        assert len(read) <= streamed.index + 4


def test_a_file_comes_at_the_pace_of_a_camera() -> None:
    start = time.monotonic()
    found = list(Stream(range(6), fps=50).answers(lambda number: number))
    assert len(found) == 6
    assert 0.1 <= time.monotonic() - start < 2


def test_a_source_that_stalls_ends_the_stream(refused) -> None:
    source = Source(3)
    source.go.release()
    answers = Stream(source, stall_s=0.2).answers(lambda number: number)
    assert next(answers).item == 0
    start = time.monotonic()
    with pytest.raises(SourceStalledError, match=r"nothing has come for 0.2 s") as caught:
        next(answers)
    assert caught.value.exit_code == 4
    assert time.monotonic() - start < 2


def test_what_the_source_raises_comes_behind_the_answers() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the cable was pulled")

    answers = Stream(source()).answers(lambda number: number)
    assert [next(answers).item, next(answers).item] == [1, 2]
    with pytest.raises(OSError, match="cable"):
        next(answers)


def test_what_the_network_raises_is_raised_and_the_reader_ends() -> None:
    def fail(number: int) -> int:
        raise BadInputError("no")

    before = set(threading.enumerate())
    with pytest.raises(BadInputError):
        list(Stream(range(1000)).answers(fail))
    for _ in range(100):
        if set(threading.enumerate()) <= before:
            return
        time.sleep(0.02)
    pytest.fail("the reader still runs")


@pytest.mark.parametrize("wrong", [{"drop": "newest"}, {"fps": 0}, {"stall_s": -1}, {"waiting": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, object], refused) -> None:
    with refused(BadInputError, *map(str, wrong.values())):
        Stream([], **wrong)


def test_a_runner_streams_arrays(compressed: CompressedModel, images: np.ndarray) -> None:
    with Runner.open(compressed.bundle.folder, NAME) as runner:
        singles = [images[i : i + 1] for i in range(len(images))]
        for source in (singles, [(x,) for x in singles]):
            found = list(runner.stream(source))
            assert [streamed.index for streamed in found] == list(range(len(images)))
            for streamed, x in zip(found, singles, strict=True):
                np.testing.assert_array_equal(streamed.answer[0], runner(x)[0])


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A film of five plain pictures, larger than the network takes."""
    path = tmp_path / "clip.avi"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for index in range(5):
        # Blue grows; OpenCV's pictures are BGR.
        out.write(np.full((24, 32, 3), (50 * index, 10, 200), np.uint8))
    out.release()
    return path


def test_videos_are_read_in_rgb(video: Path) -> None:
    pictures = list(read_video(str(video)))
    assert [p.shape for p in pictures] == [(24, 32, 3)] * 5
    for index, picture in enumerate(pictures):
        np.testing.assert_allclose(picture.mean((0, 1)), (200, 10, 50 * index), atol=6)


def test_a_runner_streams_a_video(compressed: CompressedModel, video: Path) -> None:
    manifest = compressed.bundle.manifest
    with Runner.open(compressed.bundle.folder, NAME) as runner:
        found = list(runner.stream(video))
        assert [streamed.item.source for streamed in found] == [f"{video} {i}" for i in range(5)]
        for streamed, picture in zip(found, read_video(str(video)), strict=True):
            x = manifest.preprocessing(manifest.preprocessing.fit(picture))
            assert x.shape == (1, 3, 12, 12)
            np.testing.assert_array_equal(streamed.answer[0], runner(x)[0])


def test_videos_and_cameras_that_are_none_are_refused(tmp_path: Path, refused) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with refused(BadInputError, "text.mp4 is not a readable video"):
        next(read_video(str(text)))
    with refused(BadInputError, "camera:0", "'camera:x'"):
        next(read_video("camera:x"))
    with refused(BackendUnavailableError, "camera:99", "no such camera"):
        next(read_video("camera:99"))


def test_the_command_takes_a_video(edgedl: Run, compressed: CompressedModel, video: Path) -> None:
    folder = compressed.bundle.folder
    done = edgedl("run", folder, "--artifact", NAME, "--input", video, "--fps", 100)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{video} {i}" for i in range(5)]
    done = edgedl("run", folder, "--artifact", NAME, "--input", video.with_name("none.mp4"))
    assert_one_line(done, 2, "there is no file")
    done = edgedl("run", folder, "--artifact", NAME, "--input", "camera:99")
    assert_one_line(done, 4, "no such camera")


def npy(*arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    for array in arrays:
        np.lib.format.write_array(out, array)
    return out.getvalue()


class Stdin(io.BufferedReader):
    """What comes on stdin, as sys.stdin has it."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))

    @property
    def buffer(self) -> io.BufferedReader:
        return self


def test_arrays_come_on_stdin_one_behind_the_other(
    compressed: CompressedModel, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    monkeypatch.setattr(sys, "stdin", Stdin(npy(images[:2], np.asfortranarray(images[2]), pixels)))
    pictures = compressed.bundle.manifest.preprocessing
    with Runner.open(compressed.bundle.folder, NAME) as runner:
        first, second, third = runner.stream("-")
        np.testing.assert_array_equal(first.answer[0], runner(images[:2])[0])
        np.testing.assert_array_equal(second.answer[0], runner(images[2:3])[0])
        np.testing.assert_array_equal(third.answer[0], runner(pictures(pixels[None]))[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda x: npy(x)[:-1], "ends after"),
        (lambda x: npy(x) + b"more of it", "no stream"),
        (lambda x: npy(x)[:60], "no stream"),
        (lambda x: npy(np.zeros(0)).replace(b"(0,), ", b"(-1,),"), "its header says"),
        (lambda x: npy(np.zeros((2, 3))).replace(b"(2, 3), ", b"(-2,-3),"), "its header says"),
        (lambda x: npy(np.array([""])).replace(b"<U1", b"<U0"), "its header says"),
    ],
)
def test_a_damaged_stream_of_arrays_is_refused(
    compressed: CompressedModel,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    content,
    words: str,
    refused,
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(content(images[:1])))
    with (
        Runner.open(compressed.bundle.folder, NAME) as runner,
        refused(BadInputError, "stdin", words),
    ):
        list(runner.stream("-"))


def test_a_command_ends_while_nothing_comes_on_stdin(compressed: CompressedModel) -> None:
    command = [sys.executable, "-m", "edgedl", "run", str(compressed.bundle.folder), "--input", "-"]
    start = time.monotonic()
    with subprocess.Popen(
        [*command, "--stall", "0.3"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.wait(30) == 4
        assert process.stderr is not None
        assert process.stderr.read().endswith("nothing has come for 0.3 s\n")
    assert time.monotonic() - start < 30
