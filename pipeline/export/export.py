"""Write the findings of an audit in a format for other tools."""

import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.export.coco import THRESHOLD, coco
from pipeline.export.fiftyone import write_fiftyone
from pipeline.export.tables import Pairs, flagged_images, flagged_pairs, groups, issues
from pipeline.results.rows import name_list
from pipeline.storage.location import Location, local_path, open_location
from pipeline.storage.tables import require_table_name, write_table

FORMATS = ("ids", "groups", "issues", "coco", "fiftyone")


def export(
    audit: Audit,
    kind: str,
    out: str,
    pairs: Pairs | tuple[str, str] | None = None,
    *,
    cues: str | Sequence[str] | None = None,
    limit: int | None = None,
    threshold: float = THRESHOLD,
    pictures: bool = False,
) -> int:
    """Write findings in one of `FORMATS`.

    Args:
        out: a ``.csv``, ``.parquet`` or ``.json`` file (ids, groups, issues), a ``.json`` file
            (coco), a local folder (fiftyone).
        pairs: a (class, cue), or several; default the flagged ones.
        cues: for ``groups``, the cues that divide the classes; default the cues of the pairs.
        limit: for ``ids``, ``coco`` and ``fiftyone``, the largest number of images of each pair,
            those with the highest scores.
        threshold: for ``coco``, the share of a map's maximum from which a pixel counts.
        pictures: for ``coco``, whether to write the images, too, beside the ``.json`` file.

    Returns:
        Number of rows, annotations or samples written.

    Raises:
        UsageError: the format, a class, a cue or the ending of the name is unknown, or a value is
            given that the format does not use.
    """
    if kind not in FORMATS:
        raise UsageError(f"format {kind!r}: expected one of {', '.join(FORMATS)}")
    _refuse_unused(
        kind,
        {
            "limit": (limit is not None, ("ids", "coco", "fiftyone")),
            "cue": (cues is not None, ("groups",)),
            "threshold": (threshold != THRESHOLD, ("coco",)),
            "pictures": (pictures, ("coco",)),
        },
    )
    if kind == "fiftyone":
        local_path(out)
    elif kind != "coco":
        require_table_name(out)
    elif not out.endswith(".json"):
        raise UsageError(f"{out}: expected a name ending in .json for the format coco")
    chosen = flagged_pairs(audit) if pairs is None else _pair_list(pairs)
    if kind == "groups":
        return _table(
            groups(audit, name_list(cues or dict.fromkeys(cue for _, cue in chosen))), out
        )
    try:
        if kind == "issues":
            return _table(issues(audit, chosen), out)
        images = flagged_images(audit, chosen)
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
    if limit is not None:
        images = images.groupby(["class", "cue"], sort=False).head(limit)
    if kind == "ids":
        return _table(images, out)
    if kind == "coco":
        file = open_location(out)
        folder = Location(file.fs, posixpath.dirname(file.path)) if pictures else None
        dataset = coco(audit, images, threshold, folder)
        file.write(json.dumps(dataset, allow_nan=False).encode())
        return len(dataset["annotations"])
    write_fiftyone(audit, images, Path(out))
    return int(images["image_id"].nunique())


def _refuse_unused(kind: str, options: Mapping[str, tuple[bool, Sequence[str]]]) -> None:
    """Refuse options of other formats: name -> whether it is given, and the formats that use it."""
    for name, (is_given, formats) in options.items():
        if is_given and kind not in formats:
            raise UsageError(
                f"{name}: the format {kind} does not use it, only {', '.join(formats)}; leave it "
                "out"
            )


def _pair_list(pairs: Pairs | tuple[str, str]) -> list[tuple[str, str]]:
    """Pairs as a list; a single (class, cue) is a list of one."""
    if len(pairs) == 2 and all(isinstance(name, str) for name in pairs):
        return [(str(pairs[0]), str(pairs[1]))]
    chosen: list[tuple[str, str]] = []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2:
            raise UsageError(f"pairs: expected (class, cue), found {pair!r}")
        chosen.append((pair[0], pair[1]))
    return chosen


def _table(frame: pd.DataFrame, out: str) -> int:
    write_table(frame, out)
    return len(frame)
