"""Data and metric of one's own; needs numpy and edgedl's runner, so a device can score with them.

``edgedl bench out/blobs/bundle --task docs/examples/blobs.py:task --out out/again``; as a program
it writes four pictures to ``pictures.npy``.
"""

import numpy as np

from edgedl import ArrayTask, Samples

SIDE = 24


def make_pictures(count: int, seed: int) -> Samples:
    """Return pictures float32 [N, 1, 24, 24] and centres float32 [N, 2] in 0..1."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.15, 0.85, (count, 2))
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    squared = (rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2
    pictures = np.exp(-squared / 0.01) + 0.1 * rng.standard_normal((count, SIDE, SIDE))
    return Samples((pictures[:, None].astype(np.float32),), centres.astype(np.float32))


def within_one_pixel(outputs: list[np.ndarray], centres: np.ndarray) -> np.ndarray:
    """Score 1 where the found centre is at most one pixel off."""
    distance = np.linalg.norm(outputs[0] - centres, axis=1)
    return (distance * (SIDE - 1) <= 1.0).astype(np.float64)


def task() -> ArrayTask:
    """Return what edgedl calibrates on and scores with."""
    return ArrayTask(
        name="blobs",
        splits={
            "calibration": lambda: make_pictures(512, seed=1),
            "test": lambda: make_pictures(2000, seed=2),
        },
        metric="within_one_pixel",
        score_samples=within_one_pixel,
    )


if __name__ == "__main__":
    np.save("pictures.npy", make_pictures(4, seed=3).inputs[0])
