"""A sign of life every few seconds from work that takes long, where there is no terminal to draw a bar on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

SECONDS = 5.0
"""Between two lines."""


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` every few seconds, from a thread of its own, until the block ends."""
    over = Event()

    def run() -> None:
        while not over.wait(SECONDS):
            beat()

    thread = Thread(target=run, name="foresay heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def span(seconds: float) -> str:
    """A time as a person would say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
