"""Figures of a run for Prometheus, through Ray's own exporter on every node."""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge


class Metrics:
    """Counts images, maps and busy seconds; held by the actor that all workers report to.

    Ray puts ``ray_`` before the names, and ``_total`` after those of counters.

    Args:
        output: of the run, without credentials; the tag ``output`` of every figure.
    """

    def __init__(self, output: str) -> None:
        own = {"output": output}
        self.images = Counter(
            "legrad_images",
            "Rows that left the explain stage, by status (all but ok are failures).",
            ("output", "status"),
        )
        self.maps = Counter("legrad_maps", "Heatmaps computed.", ("output",))
        self.seconds = Counter(
            "legrad_stage_seconds",
            "Busy seconds of all workers by stage (read, decode, explain, encode).",
            ("output", "stage"),
        )
        self.batch_size = Gauge("legrad_batch_size", "Rows of the last batch.", ("output",))
        for metric in (self.images, self.maps, self.seconds, self.batch_size):
            metric.set_default_tags(own)

    def batch(self, statuses: Mapping[str, int], maps: int) -> None:
        """A batch left the explain stage."""
        for status, rows in statuses.items():
            if rows:
                self.images.inc(rows, {"status": str(status)})
        if maps:
            self.maps.inc(maps)
        self.batch_size.set(sum(statuses.values()))

    def spent(self, stage: str, seconds: float) -> None:
        """A worker was busy."""
        if seconds > 0:
            self.seconds.inc(seconds, {"stage": stage})
