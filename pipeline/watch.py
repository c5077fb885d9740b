"""Who is told how a run goes, and how often."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.progress import Progress


@dataclass(frozen=True)
class Watch:
    """Who is told how a run goes.

    Attributes:
        stage: called with a line of text when a stage begins.
        progress: called with the counts every ``seconds``.
    """

    stage: Callable[[str], None] = lambda text: None
    progress: Callable[[Progress], None] = lambda progress: None
    seconds: float = 1.0


@contextmanager
def watched(actor: Any, watch: Watch) -> Iterator[None]:
    """Tell the watcher the counts now and then, from a thread."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(watch.seconds):
            try:
                watch.progress(ray.get(actor.snapshot.remote(), timeout=10))
            except ray.exceptions.GetTimeoutError:
                continue  # busy; ask again
            except ray.exceptions.RayError:
                return  # the session ends; the run itself says why

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
