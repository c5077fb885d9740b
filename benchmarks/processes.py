"""CPU seconds and memory of all processes of a Ray session, sampled from outside."""

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SECONDS = 0.25


@dataclass
class Usage:
    """CPU time and memory of the processes.

    Attributes:
        cpu: CPU seconds by the title that a process had when it spent them.
        driver: peak resident bytes of this process.
        worker: peak bytes of the largest Ray worker, without shared memory.
        workers: peak bytes of all Ray workers together, without shared memory.
    """

    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    driver: int = 0
    worker: int = 0
    workers: int = 0


@contextmanager
def sampled() -> Iterator[Usage]:
    """Sample this process and its Ray session while the body of the `with` runs."""
    usage = Usage()
    spent: dict[int, float] = {}
    _sample(usage, spent)
    usage.cpu.clear()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SECONDS):
            _sample(usage, spent)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        done.set()
        thread.join()
        _sample(usage, spent)


def _sample(usage: Usage, spent: dict[int, float]) -> None:
    private = []
    for process in _session():
        try:
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
                name = _name(process)
        except psutil.Error:
            continue  # it has just ended
        seconds = times.user + times.system
        usage.cpu[name] += seconds - spent.get(process.pid, 0.0)
        spent[process.pid] = seconds
        if process.pid == os.getpid():
            usage.driver = max(usage.driver, memory.rss)
        elif name.startswith("ray::"):
            private.append(memory.rss - memory.shared)
    usage.worker = max(usage.worker, *private, 0)
    usage.workers = max(usage.workers, sum(private))


def _session() -> list[psutil.Process]:
    """This process and its descendants, which include the workers, children of the raylet."""
    mine = psutil.Process()
    return [mine, *mine.children(recursive=True)]


def _name(process: psutil.Process) -> str:
    if process.pid == os.getpid():
        return "driver"
    title: str = (process.cmdline() or [process.name()])[0]
    if title.startswith("ray::"):
        return title.removesuffix("()").split("(")[0] if "MapBatches" not in title else title
    return Path(title).name
