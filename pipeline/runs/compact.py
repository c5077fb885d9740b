"""Rewrite the parts of a run into a new folder, sorted by image_id, in large parts."""

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.errors import RunError, UsageError, counted
from pipeline.machine import map_in_threads
from pipeline.runs.lease import hold_lease
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, read_manifest, run_folder
from pipeline.runs.parts import DRAFT, PART, committed_parts, ids_of
from pipeline.runs.sort import sort_parts, span_of
from pipeline.storage.location import Location, Options, arrow_filesystem, redact

CHECKED_PARTS = 8
CHECKED_ROWS = 1_000
_WRITTEN_BY_COMPACT = re.compile(
    rf"images/({PART.pattern}|\..*{DRAFT})"
    rf"|_run/\.?(input|index|manifest|complete|compacting)\.(json|parquet)(\..*{DRAFT})?"
    r"|_run/\.?([^/]+\.csv|label_design\.json)(\..*\.draft)?"
)
"""Files that a compaction writes, and the drafts that a kill leaves on a local disk."""


_WRITTEN_BY_PEOPLE = ("*.csv", "label_design.json")
"""Verdicts, waivers and answers, and the images that were drawn for them."""


@dataclass(frozen=True)
class Compacted:
    """The result of a compaction.

    Attributes:
        output: the new folder.
        rows: number of rows of the run.
        parts_before, parts: number of Parquet files in the old and the new folder.
        bytes_before, bytes: their size.
        deleted: whether the old folder was deleted.
    """

    output: str
    rows: int
    parts_before: int
    parts: int
    bytes_before: int
    bytes: int
    deleted: bool


def compact(
    uri: str,
    output: str,
    options: Options | None = None,
    *,
    partial: bool = False,
    delete_source: bool = False,
    report_message: Callable[[str], None] = lambda text: None,
) -> Compacted:
    """Write a run's rows sorted, in parts of up to 100,000 rows or 512 MB, into a new folder.

    The new folder is an ordinary run: it can be opened, and new shards can be added. Its parts
    have the schema and metadata of the old ones. Files that an interrupted compaction left in the
    new folder are removed, and everything is written again.

    Args:
        uri: the run.
        output: the new folder; it must be empty except for an interrupted compaction of this run.
        options: storage options of both folders.
        partial: accept a run that is not complete.
        delete_source: delete the old run's files after the new rows were counted and a sample of
            them compared.
        report_message: called with a line of text at each step.

    Raises:
        UsageError: there is no run in the folder, it is not complete, or the new folder is not
            empty.
        RunError: the new rows differ from the old ones.
    """
    old, new = run_folder(uri, options), run_folder(output, options)
    read_manifest(old)
    _refuse_nested(old, new)
    with hold_lease(old, report_message) as fence, hold_lease(new, report_message):
        ledger = Ledger(old).refresh()
        if not ledger.rows:
            raise UsageError(f"{uri}: no committed results yet")
        if not partial:
            _refuse_incomplete(old, ledger)
        _begin(old, new, report_message)
        report_message(
            f"sorting {counted(ledger.rows, 'row')} of {counted(len(ledger.records), 'part')}"
        )
        sort_parts(committed_parts(old), ledger.rows, new, ledger.totals.ends)
        report_message(f"comparing {output} with {uri}")
        new_ledger = Ledger(new).refresh()
        _verify(old, new, ledger, new_ledger)
        _copy_records(old, new, new_ledger)
        _copy_decisions(old, new)
        new.compacting.delete()
        if delete_source:
            fence.require()
            _delete_run(old)
    before, after = len(ledger.records), len(new_ledger.records)
    sizes = (ledger.bytes, new_ledger.bytes)
    return Compacted(output, new_ledger.rows, before, after, *sizes, deleted=delete_source)


def _refuse_nested(old: RunFolder, new: RunFolder) -> None:
    old_path, new_path = f"{old.root.path}/", f"{new.root.path}/"
    if old_path.startswith(new_path) or new_path.startswith(old_path):
        raise UsageError(
            f"--output {new.uri}: this folder and {old.uri} must not contain each other; choose "
            "a folder beside it"
        )


def _begin(old: RunFolder, new: RunFolder, report_message: Callable[[str], None]) -> None:
    """Remove what an interrupted attempt left, and mark the folder as being written.

    Such an attempt is recognised by its `compacting.json`; the same file is written for this one.

    Raises:
        UsageError: the folder holds other files, or a compaction of another run.
    """
    files = [new.root.child(name) for name in new.root.sizes() if name != _below(new.lease, new)]
    if new.compacting.exists() and json.loads(new.compacting.read())["from"] == old.root.path:
        foreign = [file for file in files if not _WRITTEN_BY_COMPACT.fullmatch(_below(file, new))]
        if not foreign:
            report_message("removing what an interrupted attempt left in the new folder")
            for file in files:
                if file != new.compacting:  # deleted last, after everything is written again
                    file.delete()
        files = foreign
    if files:
        raise UsageError(
            f"--output {new.uri}: {counted(len(files), 'file')} in it, for example "
            f"{_below(files[0], new)}. Choose another folder, or delete them."
        )
    new.compacting.write(json.dumps({"from": old.root.path}).encode())


def _below(file: Location, run: RunFolder) -> str:
    return posixpath.relpath(file.path, run.root.path)


def _refuse_incomplete(old: RunFolder, ledger: Ledger) -> None:
    marker = json.loads(old.complete.read()) if old.complete.exists() else {}
    if marker.get("rows") != ledger.rows:
        raise UsageError(
            f"{old.uri}: the run is not complete, {ledger.rows} rows are committed. Finish it, or "
            "compact it as it is: --partial"
        )


def _verify(old: RunFolder, new: RunFolder, before: Ledger, after: Ledger) -> None:
    """Compare the counts by shard and status, and a sample of rows cell by cell.

    Raises:
        RunError: the folders differ.
    """
    if _counts(before) != _counts(after):
        raise RunError(
            f"{new.uri}: the numbers of rows by shard and status differ from those of {old.uri} "
            f"({after.rows} and {before.rows} rows in all), which is kept"
        )
    parts = committed_parts(old)
    sampled = np.random.default_rng(0).choice(len(parts), min(len(parts), CHECKED_PARTS), False)
    originals = [parts[number] for number in sampled]
    ids = pa.concat_arrays([ids_of(part)[: CHECKED_ROWS // len(originals)] for part in originals])
    candidates = committed_parts(new)
    holds_ids = list(map_in_threads(lambda part: _holds(part, ids), candidates))
    copies = [part for part, holds in zip(candidates, holds_ids, strict=True) if holds]
    if _fingerprint(originals, ids) != _fingerprint(copies, ids):
        raise RunError(f"{new.uri}: rows differ from those of {old.uri}, which is kept")


def _counts(ledger: Ledger) -> Counter[tuple[str, str]]:
    """Number of rows by shard and status."""
    sums = ledger.totals.row_ranges.group_by(["shard", "status"]).aggregate([("count", "sum")])
    return Counter({(row["shard"], row["status"]): row["count_sum"] for row in sums.to_pylist()})


def _holds(part: Location, ids: pa.Array) -> bool:
    first, last = span_of(part)
    inside = pc.and_(pc.greater_equal(ids, first), pc.less_equal(ids, last))
    return bool(pc.any(inside).as_py())


def _fingerprint(parts: Sequence[Location], ids: pa.Array) -> str:
    """SHA-256 of the rows with the given ids and of their schema; floats are not rounded."""
    filesystem = arrow_filesystem(parts[0])
    dataset = ds.dataset([p.path for p in parts], filesystem=filesystem, format="parquet")
    rows = dataset.to_table(filter=ds.field("image_id").isin(ids)).sort_by("image_id")
    content = repr(rows.to_pylist()).encode() + rows.schema.serialize().to_pybytes()
    return hashlib.sha256(content).hexdigest()


def _copy_records(old: RunFolder, new: RunFolder, after: Ledger) -> None:
    """Copy the files that make the folder a run, the manifest and the completion marker last."""
    if old.input.exists():
        new.input.write(old.input.read())
    after.index()
    manifest = read_manifest(old)
    manifest["compacted"] = {
        "from": redact(old.uri),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    new.manifest.write(json.dumps(manifest, indent=2).encode())
    if old.complete.exists():
        marker = json.loads(old.complete.read())
        if marker["rows"] == after.rows:
            marker |= {"parts": len(after.records), "bytes": after.bytes}
            new.complete.write(json.dumps(marker, indent=2).encode())


def _copy_decisions(old: RunFolder, new: RunFolder) -> None:
    """Copy what people wrote into the run."""
    before, after = (folder.root.child("_run") for folder in (old, new))
    for pattern in _WRITTEN_BY_PEOPLE:
        for name in before.files(pattern):
            after.child(name).write(before.child(name).read())


def _delete_run(old: RunFolder) -> None:
    """Delete the run's files and keep any others.

    The manifest goes first, so that a half-deleted folder no longer counts as a run.
    """
    old.manifest.delete()
    old.complete.delete()
    for part in committed_parts(old):
        part.delete()
    for name in old.root.child("_run").sizes():
        if name != posixpath.basename(old.lease.path):
            old.root.child("_run", name).delete()
    if old.root.is_local:
        for folder in sorted(Path(old.root.path).rglob("*/"), reverse=True):  # deepest first
            if not any(folder.iterdir()):
                folder.rmdir()
