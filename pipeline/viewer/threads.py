"""Threads of the server: each kind of long work has its own, so that other pages do not wait."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

_NICE = 10  # a tenth of the time that a thread of usual priority gets beside it
_PATIENCE = 1.5
"""Seconds for which a page waits for something before it says so."""
Result = TypeVar("Result")


class NotReadyError(Exception):
    """Something that a page needs is still being computed; the page should be asked for again."""


class Threads:
    """Named groups of threads.

    Args:
        sizes: number of threads of each group; work of a group of one is done in order.
        background: groups whose threads let others go first.
    """

    def __init__(self, sizes: Mapping[str, int], background: Collection[str] = ()) -> None:
        self._pools = {
            name: ThreadPoolExecutor(size, initializer=_be_nice if name in background else None)
            for name, size in sizes.items()
        }

    def submit(self, name: str, function: Callable[..., Result], *values: Any) -> "Future[Result]":
        """Begin to call a function in one of the threads."""
        return self._pools[name].submit(function, *values)

    async def work(self, name: str, function: Callable[..., Result], *values: Any) -> Result:
        """Call a function in one of the threads, and wait for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools[name], function, *values)

    def close(self) -> None:
        """End the threads, without waiting for what they compute."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _be_nice() -> None:
    """Give this thread, and those that it starts, a low priority; only Linux can do that."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


async def ready(future: "Future[Result]") -> Result:
    """A result that has been begun; raises `NotReadyError` if it takes longer than a page waits."""
    try:
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), _PATIENCE)
    except TimeoutError as error:
        if future.done():  # the work itself met a time limit, such as one of a storage
            return future.result()
        raise NotReadyError from error
