"""Progress whose texts a test hears."""

from collections.abc import Callable

from edgedl.runtime.progress import Event, Progress


def steps_to(hear: Callable[[str], object]) -> Progress:
    def listen(event: Event) -> None:
        if event.is_step:
            hear(event.text)

    return Progress(listen)


def notes_to(hear: Callable[[str], object]) -> Progress:
    def listen(event: Event) -> None:
        if not event.is_step:
            hear(event.text)

    return Progress(listen)
