"""Rewrites the parts of a run into a new folder: sorted by image_id, in large parts."""

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

from pipeline.errors import RunError, UsageError
from pipeline.machine import map_in_threads
from pipeline.runs.lease import held
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import RunFolder, read_manifest, run_folder
from pipeline.runs.parts import DRAFT, PART, arrow_filesystem, committed_parts, ids_of
from pipeline.runs.sort import sort_parts, span_of
from pipeline.storage.location import Location, Options, redact

CHECKED_PARTS = 8
CHECKED_ROWS = 1_000
_OWN = re.compile(
    rf"images/({PART.pattern}|\..*{DRAFT})"
    rf"|_run/\.?(input|index|manifest|complete|compacting)\.(json|parquet)(\..*{DRAFT})?"
)
"""What a compaction writes, and the drafts that a kill leaves on a local disk."""


@dataclass(frozen=True)
class Compacted:
    """The result of a compaction.

    Attributes:
        output: the new folder.
        rows: of the run.
        parts_before, parts: Parquet files of the old and the new folder.
        bytes_before, bytes: their size.
        deleted: whether the old folder is gone.
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
    tell: Callable[[str], None] = lambda text: None,
) -> Compacted:
    """Write a run's rows sorted, in parts of up to 100,000 rows or 512 MB, into a new folder.

    The new folder is a run like any: it opens, and it takes new shards. Schema and metadata of the
    parts are those of the old ones. What an attempt that was interrupted left in the new folder is
    removed, and everything is written again.

    Args:
        uri: the run.
        output: the new folder, which must be empty but for such an attempt of the same run.
        options: storage options of both.
        partial: take a run that is not complete as it is.
        delete_source: delete the old folder's files once the new rows were counted and a sample of
            them compared.
        tell: called with a line of text at each step.

    Raises:
        UsageError: no run there, one that is not complete, or a place that is not free.
        RunError: the new rows are not the old ones.
    """
    old, new = run_folder(uri, options), run_folder(output, options)
    read_manifest(old)
    _refuse_nested(old, new)
    with held(old, tell) as fence, held(new, tell):
        ledger = Ledger(old).refresh()
        if not ledger.rows:
            raise UsageError(f"{uri}: no committed results yet")
        if not partial:
            _refuse_incomplete(old, ledger)
        _begin(old, new, tell)
        tell(f"sorting {ledger.rows:,} rows of {len(ledger.records)} parts")
        sort_parts(committed_parts(old), ledger.rows, new, ledger.totals.ends)
        tell(f"comparing {output} with {uri}")
        done = Ledger(new).refresh()
        _verify(old, new, ledger, done)
        _copy_records(old, new, done)
        new.compacting.delete()
        if delete_source:
            fence.require()
            _delete(old)
    before, after = len(ledger.records), len(done.records)
    sizes = (ledger.bytes, done.bytes)
    return Compacted(output, done.rows, before, after, *sizes, deleted=delete_source)


def _refuse_nested(old: RunFolder, new: RunFolder) -> None:
    there, here = f"{old.root.path}/", f"{new.root.path}/"
    if there.startswith(here) or here.startswith(there):
        raise UsageError(
            f"--output {new.uri} and {old.uri}: one lies in the other; choose a sibling"
        )


def _begin(old: RunFolder, new: RunFolder, tell: Callable[[str], None]) -> None:
    """Clear away what an interrupted attempt left, which its mark tells, and leave a mark.

    Raises:
        UsageError: other files are there, or those of another run.
    """
    found = [new.root.child(name) for name in new.root.sizes() if name != _below(new.lease, new)]
    if new.compacting.exists() and json.loads(new.compacting.read())["from"] == old.root.path:
        foreign = [place for place in found if not _OWN.fullmatch(_below(place, new))]
        if not foreign:
            tell("removing what an interrupted attempt left there")
            for place in found:
                if place != new.compacting:  # goes last, when all is written anew
                    place.delete()
        found = foreign
    if found:
        raise UsageError(
            f"--output {new.uri}: {len(found)} files are there ({_below(found[0], new)} first). "
            "Choose another folder, or delete them."
        )
    new.compacting.write(json.dumps({"from": old.root.path}).encode())


def _below(place: Location, run: RunFolder) -> str:
    return posixpath.relpath(place.path, run.root.path)


def _refuse_incomplete(old: RunFolder, ledger: Ledger) -> None:
    marker = json.loads(old.complete.read()) if old.complete.exists() else {}
    if marker.get("rows") != ledger.rows:
        raise UsageError(
            f"{old.uri}: the run is not complete, {ledger.rows} rows are committed. Run it to its "
            "end, or take it as it is: --partial"
        )


def _verify(old: RunFolder, new: RunFolder, before: Ledger, after: Ledger) -> None:
    """Counts by shard and status, and some rows, cell by cell.

    Raises:
        RunError: they differ.
    """
    if _counts(before) != _counts(after):
        raise RunError(
            f"{new.uri}: {after.rows} rows were written of {before.rows}, or of other shards; "
            f"{old.uri} is kept"
        )
    parts = committed_parts(old)
    draw = np.random.default_rng(0).choice(len(parts), min(len(parts), CHECKED_PARTS), False)
    chosen = [parts[number] for number in draw]
    ids = pa.concat_arrays([ids_of(part)[: CHECKED_ROWS // len(chosen)] for part in chosen])
    candidates = committed_parts(new)
    holding = list(map_in_threads(lambda part: _holds(part, ids), candidates))
    there = [part for part, holds in zip(candidates, holding, strict=True) if holds]
    if _fingerprint(chosen, ids) != _fingerprint(there, ids):
        raise RunError(f"{new.uri}: rows differ from those of {old.uri}, which is kept")


def _counts(ledger: Ledger) -> Counter[tuple[str, str]]:
    """Rows by shard and status."""
    sums = ledger.totals.runs.group_by(["shard", "status"]).aggregate([("count", "sum")])
    return Counter({(row["shard"], row["status"]): row["count_sum"] for row in sums.to_pylist()})


def _holds(part: Location, ids: pa.Array) -> bool:
    first, last = span_of(part)
    inside = pc.and_(pc.greater_equal(ids, first), pc.less_equal(ids, last))
    return bool(pc.any(inside).as_py())


def _fingerprint(parts: Sequence[Location], ids: pa.Array) -> str:
    """SHA-256 of the rows with some ids, and of their schema; no float is rounded."""
    filesystem = arrow_filesystem(parts[0])
    dataset = ds.dataset([p.path for p in parts], filesystem=filesystem, format="parquet")
    rows = dataset.to_table(filter=ds.field("image_id").isin(ids)).sort_by("image_id")
    content = repr(rows.to_pylist()).encode() + rows.schema.serialize().to_pybytes()
    return hashlib.sha256(content).hexdigest()


def _copy_records(old: RunFolder, new: RunFolder, after: Ledger) -> None:
    """What makes the folder a run; the manifest and the marker last."""
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


def _delete(old: RunFolder) -> None:
    """The files of the run; others in its folder stay. The manifest first: half a run is none."""
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
