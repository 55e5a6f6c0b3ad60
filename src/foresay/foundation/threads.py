"""A thread for work whose OpenMP threads are not to stay."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")


def in_thread(task: Callable[[], Result]) -> Result:
    """What `task` gives or raises, run in a thread that ends with it.

    Every thread that calls torch on a CPU gets OpenMP threads of its own, which stay as long as it does. Where all of
    them are more than the processor's cores, GNU's OpenMP lets them sleep between two parallel loops instead of wait,
    and a step of a small model takes up to twice as long (docs/experiments/serving.md). So a server, whose steps run
    in a thread, opens its model in one that ends.

        model = in_thread(lambda: MultiTokenModel.from_pretrained("smollm2"))
    """
    done = Future[Result]()

    def run() -> None:
        try:
            done.set_result(task())
        except BaseException as error:
            done.set_exception(error)

    # A daemon: a process that is interrupted meanwhile does not wait for it.
    thread = Thread(target=run, name="foresay task", daemon=True)
    thread.start()
    thread.join()
    return done.result()
