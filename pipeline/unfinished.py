"""What a pass left undone: the units that lack committed rows."""

from collections import Counter, defaultdict

import pyarrow.parquet as pq

from pipeline.manifest import RunFolder
from pipeline.parts import arrow_filesystem, committed_parts
from pipeline.progress import Progress
from pipeline.sources.datasource import ImageSource, Unit


def unfinished(folder: RunFolder, source: ImageSource, progress: Progress) -> list[Unit]:
    """Units that were not read to their end, or of which rows are not committed.

    Units that read the same files are finished together: rows name their file, not their unit.
    """
    there = _rows_by_file(folder)
    groups: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in source.units:
        groups[tuple(file.name for file in unit.files)].append(unit)
    rest: list[Unit] = []
    for names, units in groups.items():
        counts = [progress.shards.get(unit.name) for unit in units]
        read = sum(count.rows for count in counts if count is not None)
        if None in counts or sum(there[name] for name in names) < read:
            rest += units
    return rest


def _rows_by_file(folder: RunFolder) -> Counter[str]:
    filesystem = arrow_filesystem(folder.images)
    counts: Counter[str] = Counter()
    for part in committed_parts(folder):
        column = pq.read_table(part.path, columns=["shard"], filesystem=filesystem)["shard"]
        counts.update(column.to_pylist())
    return counts
