"""Language models that write: what follows a prompt, a token at a time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgedl.runtime.backend import Array
from edgedl.runtime.errors import BadInputError
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.runner import Runner
from edgedl.runtime.steps import Steps


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Source: Fan, Lewis, Dauphin, "Hierarchical neural story generation", 2018, section 5.4 (top k).

    Attributes:
        temperature: what logits are divided by; 0 takes the most probable token each time.
        top_k: of how many of the most probable tokens one is drawn; None for all.
        seed: of the draws.

    >>> Sampling(temperature=1.0, top_k=1).choose(np.array([0.0, 2.0, 1.0]))
    1
    """

    temperature: float = 0.0
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing.

        Raises:
            BadInputError: one does.
        """
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise BadInputError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise BadInputError(f"top_k must be at least 1, got {self.top_k}")
        if self.seed < 0:
            raise BadInputError(f"seed must be at least 0, got {self.seed}")

    def choose(self, logits: Array, random: np.random.Generator | None = None) -> int:
        """Return the number of a token.

        Args:
            logits: of all tokens, [K].
            random: draws; None for one of ``seed``.
        """
        values = logits.astype(np.float64)
        if self.temperature == 0:
            return int(values.argmax())
        if self.top_k is not None and self.top_k < len(values):
            values[np.argsort(-values, kind="stable")[self.top_k :]] = -np.inf
        shares = np.exp((values - values.max()) / self.temperature)
        random = random or np.random.default_rng(self.seed)
        return int(random.choice(len(values), p=shares / shares.sum()))


GREEDY = Sampling()


class Generation:
    """What a network writes behind a prompt; iterate over it to get the text piece by piece.

    Attributes:
        prompt: that it follows.
        text: written so far.
        tokens: written so far.
        first_token_s: from the begin to the first token, in seconds.
        seconds: for all tokens so far.
    """

    def __init__(
        self, runner: Runner, prompt: str, count: int, sampling: Sampling = GREEDY
    ) -> None:
        """Take a network and a prompt; nothing is computed yet.

        Args:
            runner: of a network of characters with a state.
            prompt: at least one character.
            count: tokens to write.
            sampling: how each is chosen.

        Raises:
            BadInputError: the network does not write text, does not know a character, or cannot see
                prompt and tokens at once.
        """
        manifest = runner.bundle.manifest
        characters = manifest.preprocessing
        if not isinstance(characters, CharacterPreprocessing) or not manifest.states:
            raise BadInputError(
                f"{manifest.name} does not write text: it is no language model with a state"
            )
        self._numbers = [int(n) for n in characters.encode(prompt)[0]]
        if count < 1:
            raise BadInputError(f"{count} tokens cannot be written: ask for at least 1")
        if len(prompt) + count > characters.context:
            raise BadInputError(
                f"the prompt has {len(prompt)} characters and {count} shall follow, the network "
                f"sees {characters.context} at once: ask for fewer, or shorten the prompt"
            )
        self.prompt, self.text, self.tokens = prompt, "", 0
        self.first_token_s = self.seconds = 0.0
        self._characters, self._count, self._sampling = characters, count, sampling
        self._steps = Steps(runner, manifest.states)

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second, those behind the first one."""
        rest = self.seconds - self.first_token_s
        return (self.tokens - 1) / rest if rest > 0 else float("nan")

    def __iter__(self) -> Iterator[str]:
        """Write the tokens, from the begin."""
        self._steps.reset()
        self.text, self.tokens = "", 0
        random = np.random.default_rng(self._sampling.seed)
        begin = time.perf_counter()
        for number in self._numbers:
            logits = self._step(number)
        for index in range(self._count):
            chosen = self._sampling.choose(logits, random)
            written = self._characters.decode([chosen])
            self.text, self.tokens = self.text + written, index + 1
            self.seconds = time.perf_counter() - begin
            if index == 0:
                self.first_token_s = self.seconds
            yield written
            if index + 1 < self._count:
                logits = self._step(chosen)

    def _step(self, number: int) -> Array:
        """Return the logits [K] of what follows a token."""
        logits: Array = self._steps(np.asarray([[number]], np.int64))[0][0, -1]
        return logits
