"""``legrad check OUT --watch``: lines that tell how a run goes, from its output."""

from typing import TYPE_CHECKING

from jobs.display import duration, log, size
from pipeline.runs.observe import Sight, observe

if TYPE_CHECKING:
    from pipeline.runs.manifest import RunFolder

_SECONDS = 5.0


def watch(folder: "RunFolder", seconds: float = _SECONDS) -> None:
    """Print a line whenever something changed, until nobody writes there."""
    before = ""
    for sight in observe(folder, seconds):
        text = line(sight)
        if text != before:
            log(text)
            before = text


def line(sight: Sight) -> str:
    """``1,200 of ~2,000 images  85 images/s; committed 1,000 rows in 3 parts, 9.1 MiB``."""
    return "; ".join(
        [
            *_going(sight),
            f"committed {sight.rows:,} rows in {sight.parts} parts, {size(sight.bytes)}",
            *_who(sight),
        ]
    )


def _going(sight: Sight) -> list[str]:
    if sight.over:
        return []
    counts = sight.progress
    if counts is None:
        return [sight.stage] if sight.stage else []
    done, expected = counts["resumed"] + counts["rows"], counts["expected"]
    parts = [f"{done:,} of ~{expected:,} images" if expected else f"{done:,} images"]
    parts.append(f"{counts['images_per_second']:.0f} images/s")
    if counts["seconds_left"] is not None:
        parts.append(f"{duration(counts['seconds_left'])} left")
    if counts["failed"]:
        parts.append(f"{counts['failed']:,} failed")
    return ["  ".join(parts)]


def _who(sight: Sight) -> list[str]:
    if sight.holder is not None and not sight.over:
        return []
    if sight.holder is not None:
        return [f"{sight.holder} gave no sign for {duration(sight.silent)}"]
    if sight.outcome not in (None, "complete"):
        return [f"the last attempt {sight.outcome}: {sight.error}"]
    if sight.complete:
        return ["complete"]
    return ["nobody writes there"]
