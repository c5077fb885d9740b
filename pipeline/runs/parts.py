"""The Parquet parts of a run: their names, how they are written and which are committed.

A part is written in one piece under a name made from a digest of its image ids, so a part that
exists is committed, and a repeated write replaces the same object. Parts of earlier versions, which
used Ray's checkpoint, are committed once their ids are in ``_run/checkpoint``.
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

from pipeline.errors import UsageError
from pipeline.runs import book
from pipeline.runs.manifest import RunFolder
from pipeline.schema import BOOK, EMBEDDING
from pipeline.storage.location import Location, arrow_filesystem
from pipeline.storage.retries import call_with_retries

PENDING = ".pending.parquet"
PARQUET = ".parquet"
DRAFT = ".draft"
PART = re.compile(r"part-(?:\d{5}-)?[0-9a-f]{32}\.parquet")
"""Name of a part written by a run, or by compact, which adds a number."""
EARLIER_PART = re.compile(r"(?:[0-9a-f]{32}_\d{6}|part-\d+)-\d+\.parquet")
"""Name of a part written by a version that used Ray's checkpoint."""
ROW_GROUP_ROWS = 10_000
_UNIQUE = ("image_id", "key", "source_offset", "source_length", "row", "sha256")


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Writer options: zstd level 3, and statistics on all columns but maps and embeddings.

    Nobody filters by those two. Columns with mostly distinct values get no dictionary, which would
    make files larger and slower to read. The numbers of embeddings get one: they are rounded, so
    that few are distinct (`pipeline.stages.encode`). A byte stream split would be as small, but
    Spark before 4.2 does not read it.
    """
    distinct_prefixes = ("score__", "heatmap__", "heatmap_max__")
    without_statistics = [n for n in schema.names if n.startswith("heatmap__") or n == EMBEDDING]
    unique = [n for n in schema.names if n.startswith(distinct_prefixes) or n in _UNIQUE]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "write_statistics": [_leaf(schema, n) for n in schema.names if n not in without_statistics],
        "use_dictionary": [_leaf(schema, n) for n in schema.names if n not in unique],
    }


def _leaf(schema: pa.Schema, name: str) -> str:
    """The path by which Parquet knows a flat column or the elements of a list."""
    return f"{name}.list.element" if pa.types.is_list(schema.field(name).type) else name


def write_part(
    images: Location, table: pa.Table, ends: pa.Table | None = None, number: int | None = None
) -> Location:
    """Commit rows as one part.

    Args:
        images: folder of the parts.
        table: rows of the output's schema with the column `BOOK`, which goes into the metadata;
            rows from a part that an earlier version wrote do not have that column.
        ends: ends of read units; by default those that the rows carry.
        number: position of the part if all parts, and the rows within them, are sorted by image
            id; None otherwise.

    Returns:
        The location of the part.

    Raises:
        OSError: the storage fails.
    """
    metadata: dict[str, str] = {}
    if BOOK in table.column_names:
        metadata = book.to_metadata(
            book.row_ranges_of(table), book.ends_of(table) if ends is None else ends
        )
        table = table.drop_columns([BOOK])
    table = book.without_metadata(table)
    ids = "\n".join(sorted(table["image_id"].to_pylist()))
    digest = hashlib.sha256(ids.encode()).hexdigest()[:32]
    prefix = "" if number is None else f"{number:05d}-"
    part = images.child(f"part-{prefix}{digest}{PARQUET}")
    options = parquet_options(table.schema)
    if number is not None:
        options |= {"sorting_columns": [pq.SortingColumn(0)]}
    if part.is_local:
        call_with_retries(_write_file, Path(part.path), table, metadata, options)
    else:
        sink = pa.BufferOutputStream()
        _write_rows(sink, table, metadata, options)
        call_with_retries(part.fs.pipe_file, part.path, sink.getvalue().to_pybytes())
    return part


def _write_file(
    target: Path, table: pa.Table, metadata: dict[str, str], options: dict[str, Any]
) -> None:
    """Write a draft, flush it to disk with fsync, then rename it."""
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
    """Read a whole part, with the column `BOOK`, and its ends.

    A part that an earlier version wrote has neither the column nor ends (None).
    """
    with arrow_filesystem(part).open_input_file(part.path) as stream:
        file = pq.ParquetFile(stream)
        table, record = file.read(), book.from_metadata(file.metadata.metadata)
    return (table, None) if record is None else (book.with_positions(table, record[0]), record[1])


def commit_of(part: str) -> str:
    """Name of the commit that a part of an earlier version belongs to."""
    return part.removesuffix(PARQUET).rsplit("-", 1)[0]


def earlier_commits(folder: RunFolder) -> dict[str, str]:
    """The commits that earlier versions made: name -> file relative to ``_run/checkpoint``."""
    return {
        path.removesuffix(PARQUET).rsplit("/", 1)[-1]: path
        for path in folder.checkpoint.sizes()
        if path.endswith(PARQUET) and not path.endswith(PENDING)
    }


def foreign_parquet_files(names: Iterable[str]) -> list[str]:
    """The names of Parquet files in ``images/`` that neither a run nor compact wrote."""
    return [
        name
        for name in names
        if name.endswith(PARQUET) and not PART.fullmatch(name) and not EARLIER_PART.fullmatch(name)
    ]


def refuse_foreign_files(folder: RunFolder) -> None:
    """Refuse an output with Parquet files of other origin, which readers would take for results.

    Raises:
        UsageError: with the name of the first.
    """
    names = foreign_parquet_files(folder.images.files())
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UsageError(
            f"{folder.uri}: images/{names[0]}{more} was not written by a run, and readers of the "
            "folder (pandas, DuckDB, Polars) would mistake it for results. Move it elsewhere."
        )


def is_of_earlier_version(folder: RunFolder) -> bool:
    """Whether the run's parts were written by a version that used Ray's checkpoint.

    Also true if they were compacted from such parts.
    """
    for part in committed_parts(folder):
        with suppress(pa.ArrowInvalid):  # the part is broken; look at another one
            metadata = pq.read_metadata(part.path, filesystem=arrow_filesystem(part))
            return book.from_metadata(metadata.metadata) is None
    return bool(earlier_commits(folder))


def committed_sizes(folder: RunFolder) -> dict[str, int]:
    """Sizes in bytes of the committed parts, by name, sorted."""
    sizes = folder.images.sizes()
    earlier = earlier_commits(folder) if any(EARLIER_PART.fullmatch(name) for name in sizes) else {}
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
