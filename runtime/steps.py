"""Networks with a state: called for one step after the other, they keep what they have seen."""

from collections.abc import Callable, Sequence

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.bundle.state import State
from edgedl.runtime.errors import BadInputError

# Takes the inputs, those of the state last, and returns the outputs, in the same order.
Network = Callable[..., Sequence[Array]]

# Most values of the state of the sequences that are run at a time.
MOST_VALUES = 2**21


class Steps:
    """One sequence, or a batch of them, step by step.

    >>> def count(x, seen):
    ...     return [x + seen, seen + 1]
    >>> steps = Steps(count, (State("seen", "next_seen", (1,)),))
    >>> [float(steps(np.zeros((1, 1), np.float32))[0][0, 0]) for _ in range(3)]
    [0.0, 1.0, 2.0]
    """

    def __init__(self, network: Network, states: Sequence[State]) -> None:
        """Take a network whose last inputs and outputs are those of the states, in their order."""
        self._network, self._states = network, tuple(states)
        self._kept: list[Array] = []

    def __call__(self, *inputs: Array) -> list[Array]:
        """Do the next step.

        Args:
            inputs: [N, ...] each, without the state; N is the same in every step.

        Returns:
            The outputs without the state.

        Raises:
            BadInputError: no inputs, or another N than in the step before.
        """
        if not inputs:
            raise BadInputError("a step takes inputs besides the state")
        count = len(inputs[0])
        if not self._kept:
            self._kept = [np.zeros((count, *state.shape), np.float32) for state in self._states]
        if len(self._kept[0]) != count:
            raise BadInputError(
                f"the step is of {count} sequences, those before were of {len(self._kept[0])}: "
                "call reset() to begin others"
            )
        outputs = list(self._network(*inputs, *self._kept))
        border = len(outputs) - len(self._states)
        self._kept = outputs[border:]
        return outputs[:border]

    def reset(self) -> None:
        """Begin new sequences: the state is zero again."""
        self._kept = []


def run_sequences(
    network: Network, states: Sequence[State], sequences: Sequence[Array]
) -> tuple[Array, ...]:
    """Run whole sequences step by step.

    Args:
        network: as in ``Steps``; a step is of size 1 along axis 1.
        states: what it keeps.
        sequences: its inputs without the state, [N, T, ...] each.

    Returns:
        Its outputs without the state, joined along axis 1: [N, T, ...] each.
    """
    count, length = sequences[0].shape[:2]
    values = sum(int(np.prod(state.shape)) for state in states)
    together = max(1, MOST_VALUES // max(1, values))
    parts = []
    for start in range(0, count, together):
        steps = Steps(network, states)
        chosen = [x[start : start + together] for x in sequences]
        each = [steps(*(x[:, t : t + 1] for x in chosen)) for t in range(length)]
        parts.append([np.concatenate(column, 1) for column in zip(*each, strict=True)])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
