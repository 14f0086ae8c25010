"""What the files of a language model write, and how fast, against float32 on ONNX Runtime.

Run as ``python -m benchmarks.runtimes.writing BUNDLE [--prompts N] [--tokens N]``. Every file goes
on with the same prompts, the begins of windows of the test split, and takes the most probable token
each time. All files write one prompt after the other, in random order, one thread.

"same text" is the share of tokens that stand where the reference has the same; once two texts
differ, they are two texts. "same choice" is the share of tokens that a file chooses as the
reference did when it is given the reference's text. Times are ratios to the reference on the same
prompt, the median with a 95 % interval (bootstrap over prompts).
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedl.models.reference.tasks import make_task
from edgedl.runtime.bundle.bundle import Bundle
from edgedl.runtime.errors import EdgedlError
from edgedl.runtime.generate import Generation
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.runner import Runner
from edgedl.runtime.steps import run_sequences
from edgedl.tools.report.table import to_markdown, with_interval

REFERENCE = "ort-float32"
PROMPT = 64
RESAMPLES = 2000
HEADER = (
    "file", "same text %", "same choice %", "first token, ms", "ratio", "tokens / s", "time ratio",
)  # fmt: skip


def main() -> None:
    """Print a row for each file that runs here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=100)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    prompts = _prompts(bundle, given.prompts)
    with ExitStack() as stack:
        runners = {name: stack.enter_context(runner) for name, runner in _runners(bundle).items()}
        print(to_markdown(HEADER, _rows(runners, prompts, given.tokens)))


def _prompts(bundle: Bundle, count: int) -> list[str]:
    manifest = bundle.manifest
    characters = manifest.preprocessing
    if not isinstance(characters, CharacterPreprocessing):
        raise SystemExit(f"{manifest.name} does not write text")
    (windows,), _ = next(make_task(manifest.task.name).batches("test", 10**6))
    spread = np.linspace(0, len(windows) - 1, count).astype(int)
    return [characters.decode(windows[i, :PROMPT].tolist()) for i in spread]


def _runners(bundle: Bundle) -> dict[str, Runner]:
    found = {}
    for artifact in bundle.manifest.artifacts:
        try:
            found[artifact.name] = Runner(bundle, artifact, policy="require")
        except EdgedlError as error:
            print(f"{artifact.name}: {error}")
    return found


def _rows(runners: dict[str, Runner], prompts: Sequence[str], tokens: int) -> list[tuple[str, ...]]:
    texts: dict[str, list[str]] = {name: [] for name in runners}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    random = np.random.default_rng(0)
    for prompt in prompts:
        for name in random.permutation(list(runners)):
            generation = Generation(runners[name], prompt, tokens)
            texts[name].append("".join(generation))
            rest = (generation.seconds - generation.first_token_s) / (tokens - 1)
            times[name].append((generation.first_token_s, rest))
    reference = np.asarray(times[REFERENCE])
    rows: list[tuple[str, ...]] = []
    for name, runner in runners.items():
        own = np.asarray(times[name])
        first, each = (_ratio(own[:, i] / reference[:, i]) for i in (0, 1))
        rows.append(
            (
                name,
                f"{100 * _same(texts[name], texts[REFERENCE]):.1f}",
                f"{100 * _same_choices(runner, prompts, texts[REFERENCE]):.1f}",
                f"{1000 * np.median(own[:, 0]):.1f}",
                first,
                f"{1 / np.median(own[:, 1]):.0f}",
                each,
            )
        )
    return rows


def _same(texts: Sequence[str], wanted: Sequence[str]) -> float:
    pairs = [a == b for text, other in zip(texts, wanted, strict=True)
             for a, b in zip(text, other, strict=True)]  # fmt: skip
    return float(np.mean(pairs))


def _same_choices(runner: Runner, prompts: Sequence[str], texts: Sequence[str]) -> float:
    """Return how often the file's most probable token is the next one of the reference's text."""
    manifest = runner.bundle.manifest
    characters = manifest.preprocessing
    assert isinstance(characters, CharacterPreprocessing)
    whole = np.concatenate([characters.encode(p + t) for p, t in zip(prompts, texts, strict=True)])
    (logits,) = run_sequences(runner, manifest.states, [whole[:, :-1]])
    chosen = logits[:, PROMPT - 1 :].argmax(-1)
    return float((chosen == whole[:, PROMPT:]).mean())


def _ratio(values: npt.NDArray[np.float64]) -> str:
    random = np.random.default_rng(0)
    drawn = np.median(random.choice(values, (RESAMPLES, len(values))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return with_interval(float(np.median(values)), (float(low), float(high)), ".2f")


if __name__ == "__main__":
    main()
