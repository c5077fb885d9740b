"""The Parquet parts of a run: their names, how they are written and which are committed; no Ray.

A part is written in one piece under a name made of a digest of its image ids, so a part that is
there is committed, and a write that is repeated replaces the same object. Parts of earlier versions
(Ray's checkpoint) are committed once their ids stand in ``_run/checkpoint``.
"""

import hashlib
import os
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from pipeline.runs import book
from pipeline.runs.manifest import RunFolder
from pipeline.schema import BOOK, EMBEDDING
from pipeline.storage.location import Location
from pipeline.storage.retries import call_with_retries

PENDING = ".pending.parquet"
PARQUET = ".parquet"
DRAFT = ".draft"
PART = re.compile(r"part-(?:\d{5}-)?[0-9a-f]{32}\.parquet")
"""A part's name as a run gives it, or compact, which numbers them."""
EARLIER_PART = re.compile(r"(?:[0-9a-f]{32}_\d{6}|part-\d+)-\d+\.parquet")
"""A part's name as versions with Ray's checkpoint gave it."""
ROW_GROUP_ROWS = 10_000
_UNIQUE = ("image_id", "key", "source_offset", "source_length", "row", "sha256", EMBEDDING)


def arrow_filesystem(place: Location) -> pyarrow.fs.FileSystem:
    """The pyarrow view of a location's filesystem."""
    if place.is_local:
        return pyarrow.fs.LocalFileSystem()
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(place.fs))


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """zstd 3; statistics on everything but maps and embeddings, which nobody filters by.

    No dictionaries where hardly a value comes twice: they make files larger and slower.
    """
    measured = ("score__", "heatmap__", "heatmap_max__")
    unstated = [n for n in schema.names if n.startswith("heatmap__") or n == EMBEDDING]
    unique = [n for n in schema.names if n.startswith(measured) or n in _UNIQUE]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "write_statistics": [n for n in schema.names if n not in unstated],
        "use_dictionary": [n for n in schema.names if n not in unique],
    }


def write_part(
    images: Location, table: pa.Table, ends: pa.Table | None = None, number: int | None = None
) -> Location:
    """Commit some rows as one part.

    Args:
        images: folder of the parts.
        table: rows of the output's schema with the column `BOOK`, which goes into the metadata; of
            a part that an earlier version wrote, without it.
        ends: ends of read units; default those that the rows carry.
        number: of the part where all parts are in the order of the image ids, and so are its rows.

    Returns:
        Where it is.

    Raises:
        OSError: the storage refuses.
    """
    metadata: dict[str, str] = {}
    if BOOK in table.column_names:
        metadata = book.encode(book.runs_of(table), book.ends_of(table) if ends is None else ends)
        table = table.drop_columns([BOOK])
    table = book.without_record(table)
    ids = "\n".join(sorted(table["image_id"].to_pylist()))
    digest = hashlib.sha256(ids.encode()).hexdigest()[:32]
    order = "" if number is None else f"{number:05d}-"
    place = images.child(f"part-{order}{digest}{PARQUET}")
    options = parquet_options(table.schema)
    if number is not None:
        options |= {"sorting_columns": [pq.SortingColumn(0)]}
    if place.is_local:
        call_with_retries(_write_file, Path(place.path), table, metadata, options)
    else:
        sink = pa.BufferOutputStream()
        _write_rows(sink, table, metadata, options)
        call_with_retries(place.fs.pipe_file, place.path, sink.getvalue().to_pybytes())
    return place


def _write_file(
    target: Path, table: pa.Table, metadata: dict[str, str], options: dict[str, Any]
) -> None:
    """A draft, on the disk to its last byte, and a rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{DRAFT}")
    try:
        with draft.open("wb") as stream:
            _write_rows(stream, table, metadata, options)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _write_rows(
    sink: Any, table: pa.Table, metadata: dict[str, str], options: dict[str, Any]
) -> None:
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(metadata)


def read_part(part: Location) -> tuple[pa.Table, pa.Table | None]:
    """A part as a whole, with the column `BOOK`, and its ends.

    Of a part that an earlier version wrote there is neither column nor ends.
    """
    with arrow_filesystem(part).open_input_file(part.path) as stream:
        file = pq.ParquetFile(stream)
        table, record = file.read(), book.decode(file.metadata.metadata)
    return (table, None) if record is None else (book.with_places(table, record[0]), record[1])


def commit_of(part: str) -> str:
    """Name of the commit that a part of an earlier version belongs to."""
    return part.removesuffix(PARQUET).rsplit("-", 1)[0]


def commits(folder: RunFolder) -> dict[str, str]:
    """The commits of a run of an earlier version: name -> file relative to ``_run/checkpoint``."""
    return {
        path.removesuffix(PARQUET).rsplit("/", 1)[-1]: path
        for path in folder.checkpoint.sizes()
        if path.endswith(PARQUET) and not path.endswith(PENDING)
    }


def strangers(names: Iterable[str]) -> list[str]:
    """Those of some names in ``images/`` that are Parquet files of no run and no compact."""
    return [
        name
        for name in names
        if name.endswith(PARQUET) and not PART.fullmatch(name) and not EARLIER_PART.fullmatch(name)
    ]


def is_of_earlier_version(folder: RunFolder) -> bool:
    """Whether a version with Ray's checkpoint wrote parts of a run, or compacted such ones."""
    for part in committed_parts(folder):
        with suppress(pa.ArrowInvalid):  # broken; another part can tell
            metadata = pq.read_metadata(part.path, filesystem=arrow_filesystem(part))
            return book.decode(metadata.metadata) is None
    return bool(commits(folder))


def committed_sizes(folder: RunFolder) -> dict[str, int]:
    """Bytes of the committed parts by name, sorted."""
    sizes = folder.images.sizes()
    earlier = commits(folder) if any(EARLIER_PART.fullmatch(name) for name in sizes) else {}
    return {
        name: size
        for name, size in sizes.items()
        if PART.fullmatch(name) or (EARLIER_PART.fullmatch(name) and commit_of(name) in earlier)
    }


def committed_parts(folder: RunFolder) -> list[Location]:
    """The parts of ``images/`` whose rows are committed, sorted by name."""
    return [folder.images.child(name) for name in committed_sizes(folder)]


def ids_of(part: Location) -> pa.Array:
    """The image ids of a part, in its order."""
    table = pq.read_table(part.path, columns=["image_id"], filesystem=arrow_filesystem(part))
    return table["image_id"].combine_chunks()
