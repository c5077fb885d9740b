"""Who is told how a run goes, and how often."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.progress.progress import Progress
from pipeline.progress.repeat import repeated


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

    def look() -> bool:
        try:
            watch.progress(ray.get(actor.snapshot.remote(), timeout=10))
        except ray.exceptions.GetTimeoutError:
            return True  # busy; ask again
        except ray.exceptions.RayError:
            return False  # the session ends; the run itself says why
        return True

    with repeated(look, watch.seconds, "progress"):
        yield
