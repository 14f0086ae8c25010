"""Progress on the terminal: a bar with the time left, or plain lines where there is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from edgedl.runtime.progress import Event, Progress
from edgedl.tools.terminal.interrupt import stop_if_interrupted


@contextmanager
def steps(
    label: str, count: int, also: Callable[[Event], None] = lambda event: None
) -> Iterator[Progress]:
    """Yield the progress of ``count`` steps, which a terminal shows as a bar with the time left.

    A log gets one line per step and note. Both go to stderr. A Ctrl-C that a library swallowed
    takes effect at the next event.

    Args:
        label: in front of each step.
        count: of the steps.
        also: gets every event, too.
    """
    if not sys.stderr.isatty():
        start = time.monotonic()

        def line(event: Event) -> None:
            stop_if_interrupted()
            also(event)
            click.echo(f"{label}: {event.text} ({time.monotonic() - start:.0f} s)", err=True)

        yield Progress(line, count)
        return
    with click.progressbar(
        length=count, label=label, file=sys.stderr, item_show_func=lambda text: text
    ) as bar:

        def show(event: Event) -> None:
            stop_if_interrupted()
            also(event)
            bar.update(event.done - bar.pos, event.text)

        yield Progress(show, count)
        bar.update(max(0, count - bar.pos))
