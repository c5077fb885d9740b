"""One driver an output: a lease in ``_run/lease.json``, renewed while the driver lives.

Clocks of two machines are never compared: a lease is stale if it did not change while it was
watched. If two drivers find it stale at once, the last one to write it wins; both read it back
after a pause.
Every write task checks it before it writes a part (`Fence`), so that a driver that lost its lease
while it was suspended, or workers that outlived their driver, commit nothing more.
"""

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
_CLOCK_ROUNDING = 1.0  # seconds; of a process's start


@dataclass(frozen=True)
class Holder:
    """The driver that writes to an output.

    Attributes:
        run: unique to this attempt.
        host, pid, user: for people to find it.
        table: process table that ``pid`` belongs to.
        born: start of the process, seconds since the epoch, by its own machine.
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
        """This process."""
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
    def lives(self) -> bool | None:
        """Whether the process is there; None where that cannot be told from this machine."""
        if self.table != process_table():
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born) < _CLOCK_ROUNDING
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class Fence:
    """Checks before each write, on any worker, that this run still holds the lease.

    Attributes:
        place: file of the lease.
        run: id of the run that must hold it.
        uri: the output, for messages.
    """

    place: Location
    run: str
    uri: str

    def lost(self) -> str | None:
        """Why this run no longer holds the lease; None while it does, or if it cannot be read."""
        try:
            found = _read(self.place)
        except UsageError:
            return None  # what is to be written meets the same storage
        if found is None:
            return f"{self.uri}: the run's lease was removed; it stopped, what it committed is kept"
        holder = _holder(found)
        if holder is not None and holder.run == self.run:
            return None
        return (
            f"{self.uri}: another run took over ({holder or 'unknown'}), since this one gave no "
            "sign of life for a while; it stopped, what it committed is kept"
        )

    def require(self) -> None:
        """Continue only if this run holds the lease.

        Raises:
            RunError: the lease was taken or removed.
        """
        why = self.lost()
        if why is not None:
            raise RunError(why)


@contextmanager
def held(folder: RunFolder, tell: Callable[[str], None] = lambda text: None) -> Iterator[Fence]:
    """Hold the lease of an output until the block ends.

    Args:
        folder: of the run.
        tell: called with a line of text before a wait.

    Raises:
        UsageError: another driver holds it; or the storage refuses.
        RunError: the lease was lost in the meantime, and that is why the block failed.
    """
    place, holder = folder.lease, Holder.here()
    fence = Fence(place, holder.run, folder.uri)
    _acquire(place, holder, folder.uri, tell)
    beats = iter(range(1, 2**62))

    def renew() -> bool:
        with suppress(UsageError):  # asked again at the next beat
            theirs = _holder(_read(place) or b"")
            if theirs is not None and theirs.run == holder.run:  # seen, not guessed
                place.write(_content(holder, next(beats)))
        return True

    try:
        with repeated(renew, RENEW_SECONDS, "lease"):
            yield fence
    except Exception as error:
        why = None if isinstance(error, RunError) else fence.lost()
        if why is None:
            raise
        raise RunError(why) from error
    finally:
        _release(place, holder)


def _acquire(place: Location, holder: Holder, uri: str, tell: Callable[[str], None]) -> None:
    surely = False
    while not (created := _create(place, holder)):
        stale = _outwait(place, uri, tell)
        if stale is not None and _read(place) == stale:
            place.write(_content(holder))
            break
    else:
        surely = created and place.is_local
    if not surely:
        time.sleep(SETTLE_SECONDS)  # not every store knows conditional writes
    found = _read(place)
    theirs = _holder(found or b"")
    if theirs is None or theirs.run != holder.run:
        raise _refusal(uri, theirs)


def _create(place: Location, holder: Holder) -> bool:
    """Write the lease unless there is one."""
    data = _content(holder)
    try:
        if place.is_local:
            Path(place.path).parent.mkdir(parents=True, exist_ok=True)
            with Path(place.path).open("xb") as file:
                file.write(data)
        else:
            place.fs.pipe_file(place.path, data, mode="create")
    except FileExistsError:  # of another, or ours: an answer was lost and the request repeated
        theirs = _holder(_read(place) or b"")
        return theirs is not None and theirs.run == holder.run
    except Exception as error:
        if not is_storage_error(error):
            raise
        if place.exists():
            return False
        place.write(data)  # without the condition; storage that refuses this says so
    return True


def _outwait(place: Location, uri: str, tell: Callable[[str], None]) -> bytes | None:
    """The lease, once its holder is known to be gone; None where it was released.

    Raises:
        UsageError: the holder lives.
    """
    seen = _read(place)
    if seen is None:
        return None
    holder = _holder(seen)
    lives = None if holder is None else _lives(holder)
    if lives is False:
        return seen
    if lives:
        raise _refusal(uri, holder)
    tell(f"waiting {STALE_SECONDS:.0f} s for a sign of {holder or 'another run'} at {uri}")
    end = time.monotonic() + STALE_SECONDS
    while time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
        now = _read(place)
        if now is None:
            return None
        if now != seen:
            raise _refusal(uri, _holder(now))
    return seen


def _lives(holder: Holder) -> bool | None:
    """`Holder.lives`; one that was just killed is given a moment to be gone."""
    end = time.monotonic() + DYING_SECONDS
    while (lives := holder.lives) and time.monotonic() < end:
        time.sleep(0.1)
    return lives


def _release(place: Location, holder: Holder) -> None:
    with suppress(UsageError):  # it goes stale by itself
        theirs = _holder(_read(place) or b"")
        if theirs is not None and theirs.run == holder.run:
            place.delete()
    if place.is_local:
        run = Path(place.path).parent
        for folder in (run, run.parent):  # of an output that nothing was written to
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _content(holder: Holder, beat: int = 0) -> bytes:
    return json.dumps({"holder": asdict(holder), "beat": beat}, indent=1).encode()


def _read(place: Location) -> bytes | None:
    try:
        return place.read()
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _holder(data: bytes) -> Holder | None:
    """None where the file is empty or broken: just being written, or by something else."""
    try:
        return Holder(**json.loads(data)["holder"])
    except (ValueError, KeyError, TypeError):
        return None


def _refusal(uri: str, holder: Holder | None) -> UsageError:
    return UsageError(
        f"{uri}: another run is writing there: {holder or 'unknown'}. Wait for its end, or end it "
        f"and start again (a run killed on another machine is given {STALE_SECONDS:.0f} s), or "
        "choose another place: --set output=NEW"
    )


def holder_of(folder: RunFolder) -> Holder | None:
    """Who writes to an output now; None where nobody does, or its process is known to be gone.

    Raises:
        UsageError: the storage refuses.
    """
    holder = _holder(_read(folder.lease) or b"")
    return None if holder is None or holder.lives is False else holder


def lease_content(folder: RunFolder) -> bytes | None:
    """The lease as it is; it changes while its holder lives. None where there is none.

    Raises:
        UsageError: the storage refuses.
    """
    return _read(folder.lease)
