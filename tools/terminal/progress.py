"""Progress on the terminal: a bar with the time left, or plain lines where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from edgedl.tools.terminal.interrupt import stop_if_interrupted


@dataclass(frozen=True)
class Progress:
    """Hears what a long command is at.

    Attributes:
        step: called with a step's name before each.
        detail: hears how a step gets on.
    """

    step: Callable[[str], None]
    detail: Callable[[str], None]

    def __call__(self, text: str) -> None:
        """Hear the name of a step."""
        self.step(text)


@contextmanager
def steps(label: str, count: int) -> Iterator[Progress]:
    """Yield what to call with a step's name before each of ``count`` steps.

    A terminal shows a bar with the time left; a log gets one line per step. Both go to stderr.
    A Ctrl-C that a library swallowed takes effect at the next call.
    """
    if not sys.stderr.isatty():
        start = time.monotonic()

        def line(text: str) -> None:
            stop_if_interrupted()
            click.echo(f"{label}: {text} ({time.monotonic() - start:.0f} s)", err=True)

        yield Progress(line, line)
        return
    with click.progressbar(
        length=count, label=label, file=sys.stderr, item_show_func=lambda text: text
    ) as bar:
        started = False

        def step(text: str) -> None:
            nonlocal started
            stop_if_interrupted()
            bar.update(1 if started else 0, text)
            started = True

        def detail(text: str) -> None:
            stop_if_interrupted()
            bar.update(0, text)

        yield Progress(step, detail)
        bar.update(max(0, count - bar.pos))
