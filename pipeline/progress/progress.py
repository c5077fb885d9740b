"""Progress of a run: workers report their counts to one small actor, and the driver reads it."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util import metrics

from pipeline.schema import Status


@dataclass
class Progress:
    """Counts of one run so far.

    Attributes:
        bytes_total: size of all input files.
        resumed: rows that earlier attempts had committed.
        statuses: rows that left the explain stage, by status.
        maps: number of heatmaps computed.
        examples: one failed row and its error, by status.
        seconds: busy seconds of all workers by stage (read, decode, explain, encode; isolated for
            decoding and explaining in a process that may die).
        rows_read, bytes_read: rows, also those committed before, and bytes of the shards that were
            read to their end; a shard that is read twice counts once.
        started: `time.monotonic` at the start.
        first_image: seconds from the start to the first explained batch; None before it.
        seconds_elapsed: seconds since the start, set by `snapshot`.
    """

    bytes_total: int = 0
    resumed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    maps: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    rows_read: int = 0
    bytes_read: int = 0
    started: float = field(default_factory=time.monotonic)
    first_image: float | None = None
    seconds_elapsed: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that were explained or failed in this attempt."""
        return sum(self.statuses.values())

    @property
    def rows_expected(self) -> int | None:
        """Rows of the whole input, estimated from the shards read so far; None before the first."""
        if not self.bytes_read:
            return None
        return max(self.rows_read, round(self.rows_read * self.bytes_total / self.bytes_read))

    @property
    def images_per_second(self) -> float:
        """Images per second of this attempt since its first batch."""
        if self.first_image is None:
            return 0.0
        spent = self.seconds_elapsed - self.first_image
        return self.rows / spent if spent > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end; None while there is no estimate."""
        if self.rows_expected is None or not self.images_per_second:
            return None
        left = self.rows_expected - self.resumed - self.rows
        return max(0.0, left / self.images_per_second)

    def as_json(self) -> dict[str, Any]:
        """The counts as values of JSON, for the run's log and for messages."""
        return {
            "rows": self.rows,
            "resumed": self.resumed,
            "expected": self.rows_expected,
            "failed": self.rows - self.statuses[Status.OK],
            "statuses": dict(self.statuses),
            "maps": self.maps,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "images_per_second": round(self.images_per_second, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left),
        }


class Metrics:
    """Counters for Prometheus, which Ray exports on every node.

    Ray adds ``ray_`` in front of the names and ``_total`` to those of counters.

    Args:
        output: URI of the output without credentials; every metric has it as the tag ``output``.
    """

    def __init__(self, output: str) -> None:
        self.images = metrics.Counter(
            "legrad_images",
            "Rows that left the explain stage, by status (all but ok are failures).",
            ("output", "status"),
        )
        self.maps = metrics.Counter("legrad_maps", "Heatmaps computed.", ("output",))
        self.seconds = metrics.Counter(
            "legrad_stage_seconds",
            "Busy seconds of all workers by stage (read, decode, explain, encode).",
            ("output", "stage"),
        )
        self.batch_size = metrics.Gauge("legrad_batch_size", "Rows of the last batch.", ("output",))
        for metric in (self.images, self.maps, self.seconds, self.batch_size):
            metric.set_default_tags({"output": output})

    def batch(self, statuses: Mapping[str, int], maps: int) -> None:
        """Count a batch that left the explain stage."""
        for status, rows in statuses.items():
            if rows:
                self.images.inc(rows, {"status": str(status)})
        if maps:
            self.maps.inc(maps)
        self.batch_size.set(sum(statuses.values()))

    def spent(self, stage: str, seconds: float) -> None:
        """Count busy seconds of a worker."""
        if seconds > 0:
            self.seconds.inc(seconds, {"stage": stage})


class ProgressActor:
    """Holds the `Progress` of a run; all workers report to it.

    Args:
        start: the counts before this attempt.
        output: URI of the output without credentials, for the metrics; None for no metrics.
    """

    def __init__(self, start: Progress, output: str | None = None) -> None:
        self.metrics = None if output is None else Metrics(output)
        self.progress = start
        self.progress.started = time.monotonic()  # clocks differ by machine
        self.read: set[str] = set()
        self.ends: list[str] = []

    def shard(self, name: str, rows: int, size: int, end: str | None = None) -> None:
        """Record that a reader came to the end of a shard; see `Reporter.shard`."""
        if end is not None:
            self.ends.append(end)
        if name not in self.read:
            self.read.add(name)
            self.progress.rows_read += rows
            self.progress.bytes_read += size

    def take_ends(self) -> list[str]:
        """Return the ends that `Reporter.shard` sent since the last call."""
        ends, self.ends = self.ends, []
        return ends

    def batch(self, statuses: Mapping[str, int], maps: int, examples: Mapping[str, str]) -> None:
        """Count a batch that left the explain stage."""
        if self.progress.first_image is None:
            self.progress.first_image = time.monotonic() - self.progress.started
        self.progress.statuses.update(statuses)
        self.progress.maps += maps
        self.progress.examples = {**examples, **self.progress.examples}
        if self.metrics is not None:
            self.metrics.batch(statuses, maps)

    def spent(self, stage: str, seconds: float) -> None:
        """Count busy seconds of a worker."""
        totals = self.progress.seconds
        totals[stage] = totals.get(stage, 0.0) + seconds
        if self.metrics is not None:
            self.metrics.spent(stage, seconds)

    def snapshot(self) -> Progress:
        """Return the counts as they are now."""
        self.progress.seconds_elapsed = time.monotonic() - self.progress.started
        return self.progress


class Reporter:
    """A worker's connection to the `ProgressActor`; without an actor it does nothing."""

    def __init__(self, actor: Any = None) -> None:
        self.actor = actor

    def shard(self, name: str, rows: int, size: int, end: str | None = None) -> None:
        """Report that a shard was read to its end.

        Args:
            name: name of the shard.
            rows, size: its rows and bytes.
            end: the record of the shard's end, if no row is left to carry it. The call then waits
                for the actor, so that all ends are known when all readers are done.
        """
        if self.actor is not None:
            answer = self.actor.shard.remote(name, rows, size, end)
            if end is not None:
                ray.get(answer)

    def batch(self, rows: pa.Table, maps: int) -> None:
        """Report rows that leave the explain stage, and the number of maps in them."""
        if self.actor is not None:
            statuses = rows["status"].to_pylist()
            self.actor.batch.remote(Counter(statuses), maps, _examples(rows, set(statuses)))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds spent in the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.actor is not None:
                self.actor.spent.remote(stage, time.perf_counter() - start)


def _examples(rows: pa.Table, statuses: set[str]) -> dict[str, str]:
    """One failed row and its error, by status."""
    examples = {}
    for status in statuses - {str(Status.OK)}:
        row = rows.filter(pc.equal(rows["status"], status)).slice(0, 1)
        examples[status] = f"{row['image_id'][0].as_py()}: {row['error'][0].as_py()}"
    return examples


def start_actor(start: Progress, output: str) -> Any:
    """Start a `ProgressActor` that takes no CPU; after a crash it starts again from ``start``."""
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ProgressActor)
    return remote.remote(start, output)
