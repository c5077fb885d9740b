"""Small functions: heat enrichment, identity digests and progress counts."""

import numpy as np
import pyarrow as pa

from pipeline.audit.evidence import heat_enrichment
from pipeline.progress.progress import Progress, ProgressActor, Reporter
from pipeline.runs.manifest import digest


def test_heat_enrichment_by_hand() -> None:
    heat = np.zeros((3, 10, 10), np.float32)
    guide = np.zeros((3, 10, 10), np.float32)
    guide[:, 0] = np.arange(1, 11)  # its top tenth is the first row
    heat[0, 0] = 1.0  # all heat there: ten times the average
    heat[1] = 3.0  # even heat: average
    heat[2, 5] = 1.0  # all heat elsewhere
    np.testing.assert_allclose(heat_enrichment(heat, guide), [10, 1, 0])
    assert np.isnan(heat_enrichment(heat * 0, guide)).all()
    assert np.isnan(heat_enrichment(heat, guide * 0)).all()


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_progress_counts_and_estimates() -> None:
    actor = ProgressActor(Progress(bytes_total=1000, resumed=10))
    assert actor.snapshot().rows_expected is None
    actor.shard("a", 20, 250)
    actor.shard("a", 20, 250, "{}")  # a task that ran twice
    actor.batch({"ok": 8, "truncated": 2}, 16, {"truncated": "a/x: ends early"})
    actor.batch({}, 0, {"truncated": "a/y: ends early"})
    actor.spent("decode", 1.5)
    actor.spent("decode", 0.5)
    snapshot = actor.snapshot()
    assert (snapshot.rows, snapshot.rows_read, snapshot.rows_expected) == (10, 20, 80)
    assert actor.take_ends() == ["{}"]
    assert actor.take_ends() == []
    assert snapshot.seconds == {"decode": 2.0}
    assert snapshot.examples == {"truncated": "a/x: ends early"}
    snapshot.first_image, snapshot.seconds_elapsed = 0.0, 5.0
    assert snapshot.images_per_second == 2
    assert snapshot.seconds_left == (80 - 10 - 10) / 2
    assert Progress().seconds_left is None


def test_a_reporter_without_an_actor_does_nothing() -> None:
    reporter = Reporter()
    reporter.shard("a", 1, 2)
    reporter.batch(pa.table({"status": ["ok"]}), 1)
    with reporter.timed("read"):
        pass
