"""Read a unit in spite of storage faults: reopen it, and continue where the reading stopped."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO

from pipeline.schema import BOOK, UNREADABLE, Status
from pipeline.sources.input_rows import Row, failure, make_row
from pipeline.storage.location import is_storage_error
from pipeline.storage.retries import retrying


def reread(
    read: Callable[[], Iterable[Row]],
    stand_in: Callable[[Exception, int], Row],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Row]:
    """Yield the rows of a unit in spite of storage faults, none lost and none twice.

    After a transient error the unit is opened again, and the rows that were yielded before are
    skipped. After `ATTEMPTS` attempts without a new row, or after a permanent error, one row stands
    for the rest of the unit.

    Args:
        read: yields the unit's rows from its start, the same in the same order at every call.
        stand_in: makes that row from the error and the number of rows before it.
        sleep: waits for some seconds; tests replace it.
    """
    count = 0
    try:
        for attempt in retrying(sleep):
            with attempt:
                for row in islice(read(), count, None):
                    count += 1
                    attempt.retry_state.attempt_number = 1
                    yield row
    except Exception as error:
        if not is_storage_error(error):
            raise
        yield stand_in(error, count)


def unread(name: str, shard: str, prefix: str, number: int, error: Exception, count: int) -> Row:
    """The row that stands for what could not be read of a unit; a resumed run reads it again."""
    after = f"after {count} rows: " if count else ""
    text = f"{after}{failure(error)}"[:500]
    image_id = f"{prefix}{name}/{UNREADABLE}"
    values = {"status": Status.READ_ERROR, "error": text, BOOK: number}
    return make_row(image_id, shard, UNREADABLE, **values)


class CompleteStream:
    """A stream whose early end is a transient error, because the storage listed more bytes.

    Args:
        stream: the stream to read from.
        size: bytes that it must have; 0 if unknown.
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

    @property
    def closed(self) -> bool:
        """Whether the stream is closed; Arrow asks when it decompresses."""
        return self.stream.closed

    def close(self) -> None:
        """Leave the stream open: who opened it closes it."""

    def seekable(self) -> bool:
        """Whether the stream is seekable; that of a web server without byte ranges never is."""
        return self.stream.seekable() and getattr(self.stream, "size", 0) is not None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek in the stream."""
        return self.stream.seek(offset, whence)


def require_whole(received: int, size: int) -> None:
    """Refuse fewer bytes than a file has.

    Raises:
        ConnectionError: bytes are missing; like a broken connection, this error is transient.
    """
    if received < size:
        raise ConnectionError(f"ends after {received} of {size} bytes")
