"""Something done again and again beside the run, from a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(work: Callable[[], bool], seconds: float, name: str) -> Iterator[None]:
    """Call ``work`` every ``seconds`` until the block ends, or until it returns False.

    Args:
        work: handles its own errors; one that it raises ends the thread and is printed.
        seconds: between two calls; the first comes after as many.
        name: of the thread.
    """
    done = threading.Event()

    def loop() -> None:
        while not done.wait(seconds) and work():
            pass

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
