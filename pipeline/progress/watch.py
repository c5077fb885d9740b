"""Reporting the progress of a run to the caller, from a thread beside the run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.progress.progress import Progress


@dataclass(frozen=True)
class Watch:
    """Functions that a run calls to report its progress.

    Attributes:
        stage: called with a line of text when a stage begins.
        progress: called with the counts every ``seconds``.
        note: called with a note that should be seen before the model is loaded.
        seconds: pause between two calls of ``progress``.
    """

    stage: Callable[[str], None] = lambda text: None
    progress: Callable[[Progress], None] = lambda progress: None
    note: Callable[[str], None] = lambda text: None
    seconds: float = 1.0


@contextmanager
def watched(actor: Any, watch: Watch) -> Iterator[None]:
    """Pass the counts of a `ProgressActor` to a watch, from a thread, until the block ends."""

    def report() -> bool:
        try:
            watch.progress(ray.get(actor.snapshot.remote(), timeout=10))
        except ray.exceptions.GetTimeoutError:
            return True  # the actor is busy; ask again
        except ray.exceptions.RayError:
            return False  # the session ends, and the run itself reports why
        return True

    with repeated(report, watch.seconds, "progress"):
        yield


@contextmanager
def repeated(work: Callable[[], bool], seconds: float, name: str) -> Iterator[None]:
    """Call ``work`` every ``seconds`` from a thread, until the block ends or it returns False.

    Args:
        work: handles its own errors; one that it raises ends the thread and is printed.
        seconds: pause before each call, the first one included.
        name: name of the thread.
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
