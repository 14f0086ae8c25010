"""Progress on the terminal: a bar with the time left, or plain lines where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def steps(label: str, count: int) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with a step's name before each of ``count`` steps.

    A terminal shows a bar with the time left; a log gets one line per step. Both go to stderr.
    """
    if not sys.stderr.isatty():
        start = time.monotonic()
        yield lambda text: click.echo(
            f"{label}: {text} ({time.monotonic() - start:.0f} s)", err=True
        )
        return
    with click.progressbar(
        length=count, label=label, file=sys.stderr, item_show_func=lambda text: text
    ) as bar:
        started = False

        def step(text: str) -> None:
            nonlocal started
            bar.update(1 if started else 0, text)
            started = True

        yield step
        bar.update(max(0, count - bar.pos))
