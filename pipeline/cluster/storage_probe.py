"""What can be known before the model loads: whether the output takes files and the source gives."""

from collections.abc import Sequence
from itertools import islice
from uuid import uuid4

from pipeline.errors import UsageError
from pipeline.runs.manifest import RunFolder
from pipeline.schema import Status
from pipeline.sources.datasource import ImageSource, read_rows
from pipeline.sources.rows import Row
from pipeline.storage.location import explain_failure, redact

SAMPLES = 8
_BYTES = 2**16


def probe_output(folder: RunFolder) -> None:
    """Write a small file and delete it.

    Raises:
        UsageError: the output takes no file, or does not let go of it.
    """
    place = folder.root.child("_run", f"probe-{uuid4().hex[:8]}")  # another driver may probe, too
    try:
        place.write(bytes(_BYTES))
        place.delete()
    except UsageError as error:
        if not isinstance(error.__cause__, Exception):
            raise
        raise explain_failure(folder.uri, error.__cause__) from error  # of the user's own place


def probe_source(source: ImageSource) -> tuple[str, ...]:
    """Read the first samples of a unit; where the storage refuses, of the middle and the last one.

    Returns:
        What the user should know of the source.

    Raises:
        UsageError: nothing can be read, or the settings name what the samples do not have.
    """
    units = source.units
    for unit in (units[0], units[len(units) // 2], units[-1]):
        rows = list(islice(read_rows(source.source, unit), SAMPLES))
        read = [row for row in rows if row["status"] != Status.READ_ERROR]
        if read or not rows:
            return _fit(source, unit.name, read)
    raise UsageError(
        f"{', '.join(map(redact, source.source.uris))}: nothing can be read: {rows[0]['error']}"
    )


def _fit(source: ImageSource, name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """Hold the settings against some samples."""
    config = source.source
    where = f"the first {len(rows)} samples of {name}"
    if rows and all(row["status"] == Status.NO_IMAGE for row in rows):
        if config.format != "webdataset":  # a wrong column is refused before
            return (f"source: {where} hold no image",)
        named = config.image_field
        what = "hold no image" if named is None else f"have no field {named!r} (image_field)"
        raise UsageError(f"source: {where} {what}; {rows[0]['error']}")
    rows = [row for row in rows if row["status"] == Status.OK]
    if not rows:
        return ()
    elsewhere = config.labels is not None or config.label_names is not None  # -1 is no label
    wanted = "label_field" in config.model_fields_set and not elsewhere
    if wanted and all(row["label"] is None for row in rows):
        raise UsageError(
            f"source.label_field: {where} have no {config.label_field!r}. Name the field that "
            "holds the label, or leave label_field out."
        )
    empty = [column for column in config.carry if all(row.get(column) is None for row in rows)]
    return tuple(f"source.carry: {where} have no {column!r}" for column in empty)
