"""Cores, threads, process ids and user of the machine that this process runs on; without Ray."""

import getpass
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

IO_THREADS = 16
"""Requests made to a storage at once; it answers each one late, but many at a time."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = IO_THREADS
) -> Iterator[Result]:
    """Call a function on every item in parallel; yields the results in the order of the items.

    Items are taken and results are computed only as far ahead as there are threads, so at most
    ``threads`` results are in memory, however many items there are.

    Raises:
        Exception: the first one that the function raises; calls not yet begun are cancelled.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def process_table() -> str:
    """Identify the table of processes in which this process's id is valid.

    It consists of host name, boot and process namespace: two containers on hosts of one name may
    each have a process 7.
    """
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    namespace = str(_PID_NAMESPACE.readlink()) if _PID_NAMESPACE.is_symlink() else ""
    return " ".join([socket.gethostname(), boot, namespace]).strip()


def user() -> str:
    """Name of the user, or the user's number where it has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
