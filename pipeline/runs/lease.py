"""One driver per output: a lease in ``_run/lease.json``, renewed while the driver is alive.

The clocks of two machines are never compared: a lease is stale if it did not change while it was
watched. If two drivers find it stale at the same time, the last one to write it wins; both read it
again after a pause.
Every write task checks the lease before it writes a part (`Fence`), so a driver that lost its lease
while it was suspended, or workers that outlived their driver, commit nothing more.
"""

import itertools
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pipeline.errors import RunError, UsageError
from pipeline.machine import process_table, user
from pipeline.progress.watch import repeated
from pipeline.runs.manifest import RunFolder
from pipeline.storage.location import Location, is_storage_error

RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 1.0
DYING_SECONDS = 1.0
_POLL_SECONDS = 1.0
_Report = Callable[[str], None]
_CLOCK_ROUNDING = 1.0  # tolerance for the start time of a process, in seconds


@dataclass(frozen=True)
class Holder:
    """The driver that writes to an output.

    Attributes:
        run: id of the attempt.
        host, pid, user: machine, process id and user, for people to find the process.
        table: id of the process table that ``pid`` belongs to.
        born: start of the process in seconds since the epoch, by its own machine's clock.
        started: ISO time at which the lease was taken.
    """

    run: str
    host: str
    pid: int
    user: str
    table: str
    born: float
    started: str

    @classmethod
    def here(cls) -> "Holder":
        """A holder that describes this process."""
        return cls(
            run=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            user=user(),
            table=process_table(),
            born=psutil.Process().create_time(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, started {self.started}"

    @property
    def is_alive(self) -> bool | None:
        """Whether the process is alive; None if this machine cannot tell."""
        if self.table != process_table():
            return None
        try:
            process = psutil.Process(self.pid)
            same_process = abs(process.create_time() - self.born) < _CLOCK_ROUNDING
            return bool(same_process and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Fence:
    """Checks before each write, on any worker, that this run still holds the lease.

    Attributes:
        lease_file: file of the lease.
        run: id of the attempt that must hold it.
        uri: the output, for messages.
    """

    lease_file: Location
    run: str
    uri: str

    def lost(self) -> str | None:
        """Why this run no longer holds the lease; None if it does, or if that cannot be read."""
        try:
            content = _read(self.lease_file)
        except UsageError:
            return None  # the write that follows fails on the same storage and reports it
        if content is None:
            return f"{self.uri}: this run's lease was removed; it stopped, and its rows are kept"
        holder = _holder(content)
        if holder is not None and holder.run == self.run:
            return None
        return (
            f"{self.uri}: another run ({holder or 'unknown'}) took over because this one stopped "
            "renewing its lease. This run stopped; the rows it committed are kept"
        )

    def require(self) -> None:
        """Stop this run if it no longer holds the lease.

        Raises:
            RunError: another run took the lease, or it was removed.
        """
        reason = self.lost()
        if reason is not None:
            raise RunError(reason)


@contextmanager
def hold_lease(folder: RunFolder, report_message: _Report = lambda text: None) -> Iterator[Fence]:
    """Hold the lease of an output until the block ends.

    Args:
        folder: folder of the run.
        report_message: called with a line of text before a wait.

    Raises:
        UsageError: another driver holds the lease, or the storage fails.
        RunError: the block failed because the lease was lost in the meantime.
    """
    lease_file, holder = folder.lease, Holder.here()
    fence = Fence(lease_file, holder.run, folder.uri)
    _acquire(lease_file, holder, folder.uri, report_message)
    beats = itertools.count(1)

    def renew() -> bool:
        with suppress(UsageError):  # the next beat tries again
            current_holder = _holder(_read(lease_file) or b"")
            if current_holder is not None and current_holder.run == holder.run:
                lease_file.write(_lease_json(holder, next(beats)))
        return True

    try:
        with repeated(renew, RENEW_SECONDS, "lease"):
            yield fence
    except Exception as error:
        reason = None if isinstance(error, RunError) else fence.lost()
        if reason is None:
            raise
        raise RunError(reason) from error
    finally:
        _release(lease_file, holder)


def _acquire(lease_file: Location, holder: Holder, uri: str, report_message: _Report) -> None:
    created_exclusively = False
    while not (created := _create(lease_file, holder)):
        stale = _wait_until_stale(lease_file, uri, report_message)
        if stale is not None and _read(lease_file) == stale:
            lease_file.write(_lease_json(holder))
            break
    else:
        created_exclusively = created and lease_file.is_local
    if not created_exclusively:
        time.sleep(SETTLE_SECONDS)  # not every object store supports conditional writes
    current_holder = _holder(_read(lease_file) or b"")
    if current_holder is None or current_holder.run != holder.run:
        raise _refusal(uri, current_holder)


def _create(lease_file: Location, holder: Holder) -> bool:
    """Write the lease unless it exists; True if this process wrote it."""
    data = _lease_json(holder)
    try:
        if lease_file.is_local:
            Path(lease_file.path).parent.mkdir(parents=True, exist_ok=True)
            with Path(lease_file.path).open("xb") as file:
                file.write(data)
        else:
            lease_file.fs.pipe_file(lease_file.path, data, mode="create")
    except FileExistsError:  # another's, or ours if a request was repeated after a lost answer
        current_holder = _holder(_read(lease_file) or b"")
        return current_holder is not None and current_holder.run == holder.run
    except Exception as error:
        if not is_storage_error(error):
            raise
        if lease_file.exists():
            return False
        lease_file.write(data)  # without the condition; a storage that fails here reports the error
    return True


def _wait_until_stale(lease_file: Location, uri: str, report_message: _Report) -> bytes | None:
    """Wait until the holder is known to be gone and return its lease; None if it was released.

    Raises:
        UsageError: the holder is alive.
    """
    content = _read(lease_file)
    if content is None:
        return None
    holder = _holder(content)
    alive = None if holder is None else _is_alive(holder)
    if alive is False:
        return content
    if alive:
        raise _refusal(uri, holder)
    report_message(
        f"waiting {STALE_SECONDS:.0f} s to see if {holder or 'another run'} still writes to {uri}"
    )
    end = time.monotonic() + STALE_SECONDS
    while time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
        content_now = _read(lease_file)
        if content_now is None:
            return None
        if content_now != content:
            raise _refusal(uri, _holder(content_now))
    return content


def _is_alive(holder: Holder) -> bool | None:
    """`Holder.is_alive`, after giving a process that was just killed a moment to disappear."""
    end = time.monotonic() + DYING_SECONDS
    while (alive := holder.is_alive) and time.monotonic() < end:
        time.sleep(0.1)
    return alive


def _release(lease_file: Location, holder: Holder) -> None:
    with suppress(UsageError):  # the lease becomes stale by itself
        current_holder = _holder(_read(lease_file) or b"")
        if current_holder is not None and current_holder.run == holder.run:
            lease_file.delete()
    if lease_file.is_local:
        run = Path(lease_file.path).parent
        for folder in (run, run.parent):  # empty folders of an output that nothing was written to
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _lease_json(holder: Holder, beat: int = 0) -> bytes:
    return json.dumps({"holder": asdict(holder), "beat": beat}, indent=1).encode()


def _read(lease_file: Location) -> bytes | None:
    try:
        return lease_file.read()
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _holder(data: bytes) -> Holder | None:
    """The holder named in a lease file.

    None if the file is empty or broken, because it is being written or is not a lease.
    """
    try:
        return Holder(**json.loads(data)["holder"])
    except (ValueError, KeyError, TypeError):
        return None


def _refusal(uri: str, holder: Holder | None) -> UsageError:
    return UsageError(
        f"{uri}: another run is writing to this output: {holder or 'unknown'}. Wait until it ends; "
        "or stop it and start again (if it was killed on another machine, this takes "
        f"{STALE_SECONDS:.0f} s); or choose another output: --set output=NEW"
    )


def holder_of(folder: RunFolder) -> Holder | None:
    """The driver that writes to an output; None if there is none or its process has ended.

    Raises:
        UsageError: the storage fails.
    """
    holder = _holder(_read(folder.lease) or b"")
    return None if holder is None or holder.is_alive is False else holder


def lease_content(folder: RunFolder) -> bytes | None:
    """The bytes of the lease, which change while its holder is alive; None if there is no lease.

    Raises:
        UsageError: the storage fails.
    """
    return _read(folder.lease)
