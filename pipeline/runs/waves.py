"""Very large inputs go in waves, each with a commit folder of its own.

When a run is resumed, every worker that filters holds the committed ids of its wave (1 M ids: about
0.5 GB while they are sorted), and the driver holds all of its read tasks. A shard belongs to one
wave for ever, or its rows would be looked for among the wrong ids and come twice; so the assignment
is stored before the wave starts, and only ever added to.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import UsageError
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import Ledger, commits
from pipeline.runs.read_shards import ShardBook, shards_of
from pipeline.sources.folder import chunks
from pipeline.sources.planning import BYTES_PER_UNIT, FILES_PER_UNIT
from pipeline.sources.read_unit import Unit
from pipeline.sources.rows import clean
from pipeline.storage.location import Location

MOST_UNITS = 10_000
FLAT = ""
"""The wave of runs of version 0.1, which kept their commits in ``checkpoint`` itself."""
_BYTES_PER_ROW = 32 * 2**10
_ROWS_TO_ESTIMATE_FROM = 1000


@dataclass(frozen=True)
class Wave:
    """Some of the units, done in one go.

    Attributes:
        name: of its folder in ``_run/checkpoint``.
        checkpoint: that folder.
        units: what to read.
    """

    name: str
    checkpoint: Location
    units: tuple[Unit, ...]

    def __str__(self) -> str:
        size = sum(unit.size for unit in self.units)
        return f"{size / 2**20:.1f} MiB in {len(self.units)} shards"


@dataclass(frozen=True)
class _Waves:
    """The stored assignment: shards by wave, in the order of the waves."""

    shards: dict[str, list[str]]

    @classmethod
    def of(cls, folder: RunFolder, ledger: Ledger) -> "_Waves":
        """Read it, or make the one of a run that began without.

        Raises:
            UsageError: it is lost.
        """
        found = {path.rpartition("/")[0]: "" for path in commits(folder).values()}
        if folder.waves.exists():
            waves = {w["folder"]: list(w["shards"]) for w in json.loads(folder.waves.read())}
        else:
            flat = [name for name, path in commits(folder).items() if "/" not in path]
            waves = {FLAT: sorted(ledger.shards(flat))} if flat else {}
        lost = [name for name in found if name not in waves]
        if lost:
            names = ", ".join(name or "." for name in lost)
            raise UsageError(
                f"{folder.uri}: _run/waves.json does not know {names} of "
                "_run/checkpoint, so rows could come twice. Restore it, or choose another place: "
                "--set output=NEW"
            )
        return cls(waves)

    def store(self, folder: RunFolder) -> None:
        waves = [{"folder": name, "shards": shards} for name, shards in self.shards.items()]
        folder.waves.write(json.dumps(waves).encode())


def plan_waves(
    folder: RunFolder,
    units: Sequence[Unit],
    ledger: Ledger,
    book: ShardBook,
    rows_per_wave: int,
) -> list[Wave]:
    """Assign every unit to a wave; shards that came since the last attempt get waves of their own.

    Chunks of single files are cut anew, so that those of a wave stay as they were.

    Raises:
        UsageError: the stored assignment is lost, or does not fit these units.
    """
    stored = _Waves.of(folder, ledger)
    before = {name: len(shards) for name, shards in stored.shards.items()}
    waves, new = _by_wave(units, stored)
    size = book.bytes_per_row(_BYTES_PER_ROW, _ROWS_TO_ESTIMATE_FROM)
    for group in _groups(new, rows_per_wave, size):
        name = f"wave-{len(stored.shards):04d}"
        waves[name], stored.shards[name] = group, []
    for name, some in waves.items():
        shards = (shard for unit in some for shard in shards_of(unit))
        stored.shards[name] = list(dict.fromkeys([*stored.shards[name], *shards]))
    after = {name: len(shards) for name, shards in stored.shards.items()}
    if after != before or not folder.waves.exists():
        stored.store(folder)
    return [
        Wave(name, folder.checkpoint.child(name) if name else folder.checkpoint, tuple(waves[name]))
        for name in stored.shards
        if waves[name]
    ]


def _by_wave(
    units: Sequence[Unit], stored: _Waves
) -> tuple[defaultdict[str, list[Unit]], list[Unit]]:
    """Units of known waves, and the others; a chunk of files is split where it must be."""
    where = {shard: name for name, shards in stored.shards.items() for shard in shards}
    known: defaultdict[str, list[Unit]] = defaultdict(list)
    new: list[Unit] = []
    for unit in units:
        homes = {where[shard] for shard in shards_of(unit) if shard in where}
        if _plain(unit):
            files = defaultdict(list)
            for file in unit.files:
                files[where.get(clean(file.name))].append(file)
            for name, some in files.items():
                target = new if name is None else known[name]
                target.append(replace(unit, files=tuple(some)))
        elif len(homes) > 1:
            raise UsageError(
                f"{unit.name}: its {len(unit.files)} files belong to several waves of this output "
                "by now, and cannot be drawn from together. Choose another place: "
                "--set output=NEW"
            )
        else:
            (known[homes.pop()] if homes else new).append(unit)
    if any(len(unit.files) > 1 and _plain(unit) for unit in units):
        known = defaultdict(list, {name: _chunked(some) for name, some in known.items()})
        new = _chunked(new)
    return known, new


def _plain(unit: Unit) -> bool:
    """Whether the unit is its files and nothing more, so that it may be split."""
    return unit == Unit(unit.name, unit.files)


def _chunked(units: Sequence[Unit]) -> list[Unit]:
    """The same files in chunks that depend on these files alone."""
    files = [file for unit in units for file in unit.files]
    groups = chunks(files, FILES_PER_UNIT, BYTES_PER_UNIT)
    return [Unit(group[0].name, tuple(group)) for group in groups]


def _groups(units: Sequence[Unit], rows: int, bytes_per_row: float) -> Iterator[list[Unit]]:
    """Neighbouring units of about ``rows`` rows; those that share a shard stay together."""
    group: list[Unit] = []
    held = 0.0
    for unit in units:
        some = _rows(unit, bytes_per_row)
        full = held + some > rows or len(group) >= MOST_UNITS
        if group and full and shards_of(unit) != shards_of(group[-1]):
            yield group
            group, held = [], 0.0
        group.append(unit)
        held += some
    if group:
        yield group


def _rows(unit: Unit, bytes_per_row: float) -> float:
    """About how many rows a unit has."""
    if unit.part is not None:
        return len(unit.part.chosen) if unit.part.chosen is not None else unit.part.rows
    return len(unit.files) if len(unit.files) > 1 else unit.size / bytes_per_row
