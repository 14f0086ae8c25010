"""Pictures of a video file, a camera or a network stream, one after another, through OpenCV."""

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from edgedl.runtime.errors import BackendUnavailableError, BadInputError
from edgedl.runtime.install import install_line

VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"}
CAMERA = "camera:"
NETWORK = ("rtsp://", "http://", "https://")

Pixels = npt.NDArray[np.uint8]


class CameraStoppedError(BackendUnavailableError):
    """A camera or a stream gives no more pictures (exit code 4)."""


def is_live(where: str) -> bool:
    """Say whether something is a camera or a stream: what is not taken in time is lost.

    >>> is_live("camera:0"), is_live("clip.mp4"), is_live("http://here/clip.mp4")
    (True, False, False)
    """
    is_file = PurePosixPath(where.partition("?")[0]).suffix.lower() in VIDEOS
    return where.startswith((CAMERA, "rtsp://")) or (where.startswith(NETWORK) and not is_file)


def is_video(where: str) -> bool:
    """Say whether something is a camera, a stream, or a video somewhere."""
    return is_live(where) or PurePosixPath(where.partition("?")[0]).suffix.lower() in VIDEOS


def read_video(where: str) -> Iterator[Pixels]:
    """Yield pictures, uint8 [H, W, 3] in RGB.

    Args:
        where: a file, "camera:0" for the first camera, or the address of a stream.

    Raises:
        BackendUnavailableError: OpenCV is not installed, or there is no such camera.
        CameraStoppedError: a camera or stream that has begun gives no more pictures.
        BadInputError: the file is no video that OpenCV reads.
    """
    try:
        import cv2
    except ImportError as error:
        missing = f"opencv is missing, it reads videos and cameras: {install_line('video')}"
        raise BackendUnavailableError.of(error, missing) from error
    number = where.removeprefix(CAMERA)
    if where.startswith(CAMERA) and not number.isdecimal():
        raise BadInputError(f"a camera is {CAMERA}0, {CAMERA}1, ..., got '{where}'")
    # What fails is said below, in one line.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(int(number) if where.startswith(CAMERA) else where)
    try:
        if not capture.isOpened():
            if is_live(where):
                raise BackendUnavailableError(f"{where} cannot be opened: there is no such camera")
            raise BadInputError(f"{where} is not a readable video")
        count = 0
        while True:
            there, picture = capture.read()
            if not there:
                break
            count += 1
            yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
        if is_live(where):
            raise CameraStoppedError(f"{where} gave no more pictures after {count}")
        if not count:
            raise BadInputError(f"{where} has no pictures")
    finally:
        capture.release()
