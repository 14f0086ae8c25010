"""GNU Backgammon's network for races: a table of numbers to the odds of a position.

Source: eval.c (CalculateRaceInputs) and neuralnet.c of GNU Backgammon 1.07.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.real_networks.network import Made, RealNetwork
from benchmarks.real_networks.shelf import PackageShelf
from edgedl.models.data.packages import Package
from edgedl.runtime.errors import BadInputError

# The file begins with a magic number and the version; the second network is that for races.
MAGIC = 472.3782
RACE = 1
POINTS, CHECKERS, PLACES = 24, 15, 23
Rows = npt.NDArray[np.float32]


class Race(nn.Module):
    """Two layers of sigmoids; the first is ten times as flat."""

    def __init__(self, inputs: int, hidden: int, outputs: int, betas: tuple[float, float]) -> None:
        """Build it."""
        super().__init__()
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.beta_first, self.beta_last = betas

    def forward(self, x: Tensor) -> Tensor:
        """Map positions [N, 214] to the odds of wins, gammons, and losses of both kinds [N, 5]."""
        x = torch.sigmoid(self.beta_first * self.first(x))
        return torch.sigmoid(self.beta_last * self.last(x))


def read_network(content: bytes, number: int) -> Race:
    """Return one of the networks of a file ``gnubg.wd``.

    Raises:
        BadInputError: the file is none of GNU Backgammon's.
    """
    if len(content) < 8 or abs(float(np.frombuffer(content, "<f4", 1)[0]) - MAGIC) > 0.001:
        raise BadInputError("this is no file of GNU Backgammon's weights")
    place = 8
    for index in range(number + 1):
        inputs, hidden, outputs, _ = (int(i) for i in np.frombuffer(content, "<i4", 4, place))
        betas = tuple(float(b) for b in np.frombuffer(content, "<f4", 2, place + 16))
        sizes = (inputs * hidden, hidden * outputs, hidden, outputs)
        values = np.frombuffer(content, "<f4", sum(sizes), place + 24)
        place += 24 + 4 * sum(sizes)
        if index == number:
            net = Race(inputs, hidden, outputs, (betas[0], betas[1]))
            first, last, bias, last_bias = np.split(values.copy(), np.cumsum(sizes)[:-1])
            state = {
                "first.weight": first.reshape(inputs, hidden).T,
                "first.bias": bias,
                "last.weight": last.reshape(outputs, hidden),
                "last.bias": last_bias,
            }
            net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
    return net


def race_inputs(board: npt.NDArray[np.int64]) -> Rows:
    """Return what the network is told of the boards of both players.

    Args:
        board: checkers on a player's points, nearest home first: [N, 2, 23].

    Returns:
        float32 [N, 214]: per point whether there is one, are two, are three or more, and half of
        those above three; how many are off, one-hot; the crossings still to make, over ten.
    """
    counts = np.stack(
        [board == 1, board == 2, board >= 3, np.maximum(board - 3, 0) / 2], axis=3
    ).reshape(len(board), 2, -1)
    off = CHECKERS - board.sum(2)
    hot = off[:, :, None] == np.arange(1, CHECKERS)
    quarters = np.arange(PLACES) // 6
    crossings = (board * quarters).sum(2, keepdims=True) / 10
    found = np.concatenate([counts, hot, crossings], 2)
    return np.ascontiguousarray(found.reshape(len(board), -1), np.float32)


def race_positions(count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return boards of races, of every stage, drawn at random: [count, 2, 23]."""
    rng = np.random.default_rng(seed)
    board = np.zeros((count, 2, PLACES), np.int64)
    for sides in board:
        farthest = rng.integers(3, 13)
        for side in sides:
            left = rng.integers(1, CHECKERS + 1) if farthest <= 6 else CHECKERS
            np.add.at(side, rng.integers(0, farthest, left), 1)
    return board


def make_race(weights: Path, shelf: PackageShelf) -> Made:
    """Return the network and positions."""
    net = read_network(weights.read_bytes(), RACE)
    calibration, test = (race_inputs(race_positions(512, seed)) for seed in (0, 1))
    return Made(net, (calibration,), (test,))


NETWORKS = (
    RealNetwork(
        "gnubg-race",
        "tabular",
        Package(
            "apt-get",
            "gnubg",
            "1.07.001-1+b1",
            "270f94c93e2548b8804723e98b15f3675d61fdab02e9d35125c0d660fc2d47b2",
        ),
        "GPL-3+",
        "usr/lib/gnubg/gnubg.wd",
        "a022fd85ccab6a06782d2354a5fd20296323377700d7fd70435250cc88005573",
        "positions drawn at random",
        make_race,
    ),
)
