"""Steps over vectors [N, F]."""

from torch import nn

from benchmarks.sweep.pictures import ACTIVATIONS, Apply, Branches, Residual
from benchmarks.sweep.series import Stored
from benchmarks.sweep.step import Step

STEPS: tuple[Step, ...] = (
    (
        "linear",
        "vector",
        lambda rng, shape: nn.Sequential(
            nn.Linear(shape[1], rng.choice((8, 16))), rng.choice(ACTIVATIONS)()
        ),
    ),
    ("stored", "vector", lambda rng, shape: Stored(shape[1], rng.choice((8, 16)))),
    (
        "residual",
        "vector",
        lambda rng, shape: Residual(
            nn.Sequential(nn.Linear(shape[1], 12), nn.ReLU(), nn.Linear(12, shape[1]))
        ),
    ),
    ("norm", "vector", lambda rng, shape: rng.choice((nn.LayerNorm, nn.BatchNorm1d))(shape[1])),
    (
        "wide_and_deep",
        "vector",
        lambda rng, shape: Branches(
            [nn.Linear(shape[1], 6), nn.Sequential(nn.Linear(shape[1], 6), nn.ReLU())],
            [rng.choice((1.0, 20.0)), 1.0],
            1,
        ),
    ),
    ("square", "vector", lambda rng, shape: Apply(lambda x: x * x)),
    ("magnitude", "vector", lambda rng, shape: Apply(lambda x: (x * x + 1e-3).sqrt())),
    (
        "unit",
        "vector",
        lambda rng, shape: Apply(lambda x: x / (x.norm(dim=1, keepdim=True) + 1e-6)),
    ),
    ("clamp", "vector", lambda rng, shape: Apply(lambda x: x.clamp(-1.0, 2.0))),
)
