"""A unit read through faults of the storage: reopened, and read on where it broke off."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO

from pipeline.schema import BOOK, UNREADABLE, Status
from pipeline.sources.rows import Row, failure, make_row
from pipeline.storage.location import is_storage_error
from pipeline.storage.retries import ATTEMPTS, is_transient, pauses


def reread(
    read: Callable[[], Iterable[Row]],
    stand_in: Callable[[Exception, int], Row],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Row]:
    """The rows of a unit, none lost and none twice, whatever the storage does meanwhile.

    A transient error opens the unit again and skips the rows that were given already; what counts
    is attempts without a new row. After `ATTEMPTS` of these, or at an error that will not pass, one
    row stands for the rest.

    Args:
        read: gives the unit's rows from its start, the same in the same order every time.
        stand_in: makes the row that stands for the rest, of the error and the rows given before.
        sleep: waits some seconds.
    """
    given = 0
    waits = pauses(ATTEMPTS)
    while True:
        try:
            for row in islice(read(), given, None):
                given += 1
                waits = pauses(ATTEMPTS)
                yield row
        except Exception as error:
            if not is_storage_error(error) or isinstance(error, ValueError):
                raise
            pause = next(waits, None) if is_transient(error) else None
            if pause is None:
                yield stand_in(error, given)
                return
            sleep(pause)
        else:
            return


def unread(name: str, shard: str, prefix: str, number: int, error: Exception, given: int) -> Row:
    """The row that stands for what could not be read of a unit; a later attempt does it again."""
    after = f"after {given} rows: " if given else ""
    text = f"{after}{failure(error)}"[:500]
    image_id = f"{prefix}{name}/{UNREADABLE}"
    values = {"status": Status.READ_ERROR, "error": text, BOOK: number}
    return make_row(image_id, shard, UNREADABLE, **values)


class Whole:
    """A stream whose early end is a transient error: the storage owes bytes that were listed.

    Args:
        stream: to read from.
        size: bytes it must give; 0 where it is not known.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream = stream
        self.size = size

    def read(self, count: int = -1) -> bytes:
        """Up to ``count`` bytes.

        Raises:
            ConnectionError: the stream ends before its size.
        """
        data = self.stream.read(count)
        if count != 0 and not data:
            require_whole(self.stream.tell(), self.size)
        return data

    def seekable(self) -> bool:
        """As the stream says; a web server's that gives no ranges is none, whatever it says."""
        return self.stream.seekable() and getattr(self.stream, "size", 0) is not None

    def seek(self, offset: int, whence: int = 0) -> int:
        """As the stream does."""
        return self.stream.seek(offset, whence)


def require_whole(found: int, size: int) -> None:
    """Refuse fewer bytes than a file has.

    Raises:
        ConnectionError: a transient error, like a connection that breaks off.
    """
    if found < size:
        raise ConnectionError(f"ends after {found} of {size} bytes")
