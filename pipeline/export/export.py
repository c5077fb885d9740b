"""One place for all formats: what is asked for, which pairs, where to."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.export.coco import THRESHOLD, coco
from pipeline.export.fiftyone import write_fiftyone
from pipeline.export.tables import Pairs, flagged_images, flagged_pairs, groups, issues
from pipeline.storage.location import open_location
from pipeline.storage.tables import write_table

FORMATS = ("ids", "groups", "issues", "coco", "fiftyone")


def export(
    audit: Audit,
    kind: str,
    out: str,
    pairs: Pairs | None = None,
    *,
    cues: Sequence[str] | None = None,
    limit: int | None = None,
    threshold: float = THRESHOLD,
) -> int:
    """Write findings in one of `FORMATS`.

    Args:
        out: a ``.csv``, ``.parquet`` or ``.json`` file (ids, groups, issues), a ``.json`` file
            (coco), a local folder (fiftyone).
        pairs: (class, cue); default the flagged ones.
        cues: of ``groups``; default those of the pairs.
        limit: images of each pair, those with the highest score.
        threshold: of ``coco``: share of a map's maximum.

    Returns:
        Rows, annotations or samples written.

    Raises:
        UsageError: unknown format, class, cue or ending.
    """
    if kind not in FORMATS:
        raise UsageError(f"format {kind!r}: expected one of {', '.join(FORMATS)}")
    chosen = flagged_pairs(audit) if pairs is None else list(pairs)
    if kind == "groups":
        return _table(groups(audit, cues or list(dict.fromkeys(c for _, c in chosen))), out)
    try:
        if kind == "issues":
            return _table(issues(audit, chosen), out)
        found = flagged_images(audit, chosen)
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
    if limit is not None:
        found = found.groupby(["class", "cue"], sort=False).head(limit)
    if kind == "ids":
        return _table(found, out)
    if kind == "coco":
        made = coco(audit, found, threshold)
        open_location(out).write(json.dumps(made, allow_nan=False).encode())
        return len(made["annotations"])
    write_fiftyone(audit, found, Path(out))
    return int(found["image_id"].nunique())


def _table(frame: pd.DataFrame, out: str) -> int:
    write_table(frame, out)
    return len(frame)
