"""The committed parts of a run as one pyarrow dataset, or an error that says which part is bad."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import (
    PARQUET,
    arrow_filesystem,
    commit_of,
    commits,
    committed_parts,
    strangers,
)
from pipeline.schema import read_metadata
from pipeline.storage.location import Location

_NO_ROWS = "no committed results yet"


def open_parts(folder: RunFolder, manifest: Mapping[str, Any]) -> ds.FileSystemDataset:
    """Read the footers of all committed parts, several at once.

    Raises:
        UsageError: there are none, one is missing or broken, or it is of another run; or a file
            beside them is of no run.
    """
    _refuse_strangers(folder)
    parts = committed_parts(folder)
    _refuse_missing(folder, parts)
    if not parts:
        raise UsageError(f"{folder.uri}: {_NO_ROWS}")
    filesystem, parquet = arrow_filesystem(folder.images), ds.ParquetFileFormat()
    fragments = [parquet.make_fragment(part.path, filesystem) for part in parts]
    schemas = list(map_in_threads(_footer, fragments))
    _refuse_foreign(folder, manifest, [part.path for part in parts], schemas)
    return ds.FileSystemDataset(fragments, schemas[0], parquet, filesystem)


def _refuse_strangers(folder: RunFolder) -> None:
    """Other tools would read them as results."""
    found = strangers(folder)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise UsageError(
            f"{folder.uri}: images/{found[0]}{more} is of no run, and whatever reads the folder "
            "(pandas, DuckDB, Polars) would take it for results. Move it elsewhere."
        )


def _footer(fragment: ds.ParquetFileFragment) -> pa.Schema:
    try:
        fragment.ensure_complete_metadata()
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"{fragment.path}: this part of the results is no sound Parquet file ({error}). "
            "Restore it, or delete it and its ids below _run/checkpoint and run again."
        ) from error
    except FileNotFoundError as error:
        raise UsageError(f"{fragment.path}: gone since it was listed; open again") from error
    return fragment.physical_schema


def _refuse_missing(folder: RunFolder, parts: Sequence[Location]) -> None:
    """Ids are committed after their rows, so a commit without a part has lost it."""
    there = {commit_of(part.path.rsplit("/", 1)[-1]) for part in parts}
    lost = {name: path for name, path in commits(folder).items() if name not in there}
    for name, path in sorted(lost.items()):
        ids = folder.checkpoint.child(path)
        rows = pq.read_metadata(ids.path, filesystem=arrow_filesystem(ids)).num_rows
        if rows:
            raise UsageError(
                f"{folder.uri}: {rows} rows are committed in {name}, but images/{name}-*{PARQUET} "
                f"is missing ({len(lost)} of {len(there) + len(lost)} parts). Restore it; or "
                f"delete _run/checkpoint/{path} and run again, which computes these rows anew."
            )


def _refuse_foreign(
    folder: RunFolder, manifest: Mapping[str, Any], paths: Sequence[str], schemas: list[pa.Schema]
) -> None:
    own = manifest["metadata"].get("config_digest")
    seen: set[bytes] = set()
    for path, schema in zip(paths, schemas, strict=True):
        raw = (schema.metadata or {}).get(b"legrad", b"")
        if raw in seen and schema.names == schemas[0].names:
            continue
        seen.add(raw)
        about = read_metadata(schema)
        if about is None or about.get("config_digest") != own or schema.names != schemas[0].names:
            raise UsageError(
                f"{folder.uri}: {path} is not a part of this run (another configuration wrote it, "
                "or another tool). Put the run's own file back."
            )
