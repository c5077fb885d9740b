"""Select the rows of a unit that are not committed, and record its end."""

import json
from collections.abc import Iterable, Iterator

import pyarrow.dataset as ds

from pipeline.schema import BOOK
from pipeline.sources.input_rows import Row, clean
from pipeline.sources.read_unit import Unit
from pipeline.storage.location import Location, arrow_filesystem


def numbered(unit: Unit, rows: Iterable[Row]) -> Iterator[Row]:
    """Complete the position of every row in its shard; a row without a number has number 0."""
    files = {clean(file.name): file for file in unit.files}
    for row in rows:
        file = files[row["shard"]]
        position = {"number": row.get(BOOK, 0), "version": file.version, "bytes": file.size}
        yield row | {BOOK: position | {"end": None}}


class Remaining:
    """Leaves out the committed rows of a unit, and counts.

    Attributes:
        rows: number of rows of the unit so far, committed or not.
        kept: number of them that an earlier version of their shard has committed.
    """

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.rows = unit.committed.skipped
        self.kept = 0
        self._kept_ids = _ids(unit)

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows that are not committed."""
        ranges = self.unit.committed.ranges
        for row in rows:
            self.rows += 1
            committed = ranges.get(row["shard"])
            if committed is not None and row[BOOK]["number"] in committed:
                continue
            if row["image_id"] in self._kept_ids:
                self.kept += 1
                continue
            yield row

    def end(self) -> str:
        """The record of a unit that was read to its end, as JSON."""
        unit = self.unit
        record = {
            "unit": unit.key,
            "version": unit.version,
            "bytes": unit.size,
            "rows": self.rows - self.kept,
            "kept": self.kept,
        }
        return json.dumps(record)


def _ids(unit: Unit) -> set[str]:
    """Ids of the rows that earlier versions of the unit's shards have in committed parts."""
    parts: tuple[Location, ...] = unit.committed.other_versions
    if not parts:
        return set()
    paths, filesystem = [part.path for part in parts], arrow_filesystem(parts[0])
    dataset = ds.dataset(paths, filesystem=filesystem, format="parquet")
    rows = dataset.to_table(["image_id"], filter=ds.field("shard").isin(list(unit.shards)))
    return set(rows["image_id"].to_pylist())
