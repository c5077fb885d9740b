"""Plan the reading of a source: list, choose and sample its files, and cut them into units."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial

import fsspec

from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.machine import map_in_threads
from pipeline.sources.choice import LabelSample, quotas, wanted_ids
from pipeline.sources.folder import chunks, describe
from pipeline.sources.foreign_layouts import foreign_layout
from pipeline.sources.input_rows import clean
from pipeline.sources.keys import rows_of_part
from pipeline.sources.label_values import LabelValue, labels_of
from pipeline.sources.labels import Labeller
from pipeline.sources.listing import SourceFile, list_files
from pipeline.sources.lists import scan_list
from pipeline.sources.parquet import scan_parquet
from pipeline.sources.read_unit import Facts, Part, Scan, Unit
from pipeline.sources.records import LIST_SUFFIXES
from pipeline.sources.sidecars import attach_sidecars, told
from pipeline.sources.webdataset import IMAGE_EXTENSIONS
from pipeline.storage.location import Location, redact
from pipeline.storage.retries import call_with_retries

FILES_PER_UNIT = 256
BYTES_PER_UNIT = 64 * 2**20
SUFFIXES: dict[str, tuple[str, ...]] = {
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tzst"),
    "parquet": (".parquet",),
    "list": LIST_SUFFIXES,
}
"""File extensions by source format."""


@dataclass(frozen=True)
class SourcePlan:
    """What a source is read from.

    Attributes:
        units: the units, each one read task.
        facts: what else is known about it.
    """

    units: list[Unit]
    facts: Facts = field(default_factory=Facts)


def plan_source(fs: fsspec.AbstractFileSystem, source: SourceConfig) -> SourcePlan:
    """List a source's files, and cut those that the settings name into units.

    Raises:
        UsageError: see `list_source`, `choose_files` and `plan_units`.
    """
    files, notes = list_source(source)
    plan = plan_units(fs, choose_files(source, files), Labeller(source))
    return replace(plan, facts=replace(plan.facts, notes=(*notes, *plan.facts.notes)))


def list_source(source: SourceConfig) -> tuple[list[SourceFile], tuple[str, ...]]:
    """The files of all places of a source, and notes on files that are left out.

    Raises:
        UsageError: there are no files, or the storage refuses.
    """
    suffixes = SUFFIXES.get(source.format, ())
    files = [file for root in source.roots for file in list_files(root, source.options, suffixes)]
    _refuse_foreign(source, files, suffixes)
    if source.format != "folder":
        return files, ()
    images, others = attach_sidecars(files)
    if not others:
        return images, ()
    note = told(others, images)
    if not images:
        raise UsageError(f"{', '.join(map(redact, source.uris))}: no images; {note}")
    return images, (note,)


def _refuse_foreign(
    source: SourceConfig, files: Sequence[SourceFile], suffixes: tuple[str, ...]
) -> None:
    """Refuse a source that has no file of its format, and files of a format that is not read.

    Raises:
        UsageError: it says how to turn the files into a format that is read.
    """
    endings = suffixes or tuple(f".{extension}" for extension in IMAGE_EXTENSIONS)
    names = [file.below for file in files]
    if any(name.lower().endswith(endings) for name in names):
        return
    advice = foreign_layout(redact(source.uris[0]), names)
    if advice is not None:
        raise UsageError(f"source.uri: {redact(source.uris[0])} holds {advice}")


def choose_files(source: SourceConfig, files: list[SourceFile]) -> list[SourceFile]:
    """The files that the settings name, of those that were listed.

    Raises:
        UsageError: two files have the same name, or none is chosen.
    """
    source.refuse_same_names([file.name for file in files])
    wanted = wanted_ids(source)
    if wanted is not None:
        files = wanted.files(files, source.id_prefix)
        if not files:
            raise UsageError(
                f"source.only: no file of the source holds {wanted.ids[0]} or another of the ids"
            )
    if source.shards is None:
        return files
    chosen = [file for file in files if _matches(file.name, source.shards)]
    if not chosen:
        raise UsageError(
            f"source.shards: none of {len(files)} files matches {source.shards!r}; the first is "
            f"{files[0].name}"
        )
    return chosen


def plan_units(
    fs: fsspec.AbstractFileSystem, files: Sequence[SourceFile], labeller: Labeller
) -> SourcePlan:
    """Cut files into units of bounded size, each one read task.

    The same settings and files give the same units on every attempt.

    Raises:
        UsageError: a list is broken, or a table lacks a column.
    """
    source = labeller.source
    if source.format == "webdataset":
        return SourcePlan(_of_tars(files, source))
    if source.format == "folder":
        chosen = _sampled_files(fs, files, labeller) if source.sample else list(files)
        groups = chunks(chosen[: source.limit], FILES_PER_UNIT, BYTES_PER_UNIT)
        units = [Unit(group[0].name, tuple(group), single_images=True) for group in groups]
        return SourcePlan(units)
    plan = _of_tables(fs, files, labeller)
    if source.limit is None:
        return plan
    return replace(plan, units=list(_limited(plan.units, source.limit)))


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(name.rsplit("/", 1)[-1], pattern)


def _of_tars(files: Sequence[SourceFile], source: SourceConfig) -> list[Unit]:
    """A unit for each tar, or one for all if there is a limit: rows are counted by reading."""
    counts: Sequence[int] = ()
    if source.sample is not None:
        counts = quotas([file.name for file in files], source.sample, source.sample_seed)
        files = [file for file, count in zip(files, counts, strict=True) if count]
        counts = [count for count in counts if count]
    if source.limit is not None:
        return [Unit(files[0].name, tuple(files), None, tuple(counts), source.limit)]
    return [
        Unit(file.name, (file,), None, (counts[i],) if counts else ())
        for i, file in enumerate(files)
    ]


def _sampled_files(
    fs: fsspec.AbstractFileSystem, files: Sequence[SourceFile], labeller: Labeller
) -> list[SourceFile]:
    source = labeller.source
    sample = LabelSample[int](source.sample or 0, source.sample_seed)

    def offer(number: int) -> None:
        file = files[number]
        image_id = clean(source.id_prefix + file.name)
        label = call_with_retries(describe, fs, file, source)["label"]
        for name in labels_of(labeller.label(image_id, file.name, label)) or (None,):
            sample.offer(name, image_id, number)

    for _ in map_in_threads(offer, range(len(files))):
        pass
    return [files[number] for number in sorted(sample.positions)]


def _of_tables(
    fs: fsspec.AbstractFileSystem, files: Sequence[SourceFile], labeller: Labeller
) -> SourcePlan:
    source = labeller.source
    scan = scan_parquet if source.format == "parquet" else scan_list
    sample = LabelSample[tuple[str, int]](source.sample or 0, source.sample_seed)

    def scan_file(file: SourceFile) -> Scan:
        visit = partial(_offer, labeller, sample, file) if source.sample else None
        return scan(Location(fs, file.path), file, source, visit)

    scans = list(map_in_threads(scan_file, files))
    units = [
        unit for file, scan in zip(files, scans, strict=True) for unit in _units(file, scan.parts)
    ]
    chosen = units if source.sample is None else list(_drawn(units, sample.positions))
    return SourcePlan(chosen, _joined([scan.facts for scan in scans]))


def _joined(facts: Sequence[Facts]) -> Facts:
    """The facts of several tables as those of one source."""
    labels = [each.labels for each in facts if each.labels is not None]
    return Facts(
        tuple(note for each in facts for note in each.notes),
        facts[0].columns,
        frozenset().union(*labels) if len(labels) == len(facts) else None,
    )


def _offer(
    labeller: Labeller,
    sample: LabelSample[tuple[str, int]],
    file: SourceFile,
    row: int,
    key: str,
    label: LabelValue,
) -> None:
    image_id = clean(f"{labeller.source.id_prefix}{file.name}/{key}")
    for name in labels_of(labeller.label(image_id, key, label)) or (None,):
        sample.offer(name, image_id, (file.name, row))


def _units(file: SourceFile, parts: Sequence[Part]) -> list[Unit]:
    """The units of a table; a broken one is one unit, of which one row with a status is read."""
    if not parts:
        return [Unit(file.name, (file,))]
    return [Unit(f"{file.name}@{part.first}", (file,), part) for part in parts]


def _drawn(units: Sequence[Unit], positions: set[tuple[str, int]]) -> Iterator[Unit]:
    rows: dict[str, list[int]] = defaultdict(list)
    for name, row in sorted(positions):
        rows[name].append(row)
    for unit in units:
        if unit.part is None:
            yield unit
            continue
        chosen = frozenset(rows_of_part(rows[unit.files[0].name], unit.part))
        if chosen:
            yield replace(unit, part=replace(unit.part, chosen=chosen))


def _limited(units: Sequence[Unit], limit: int) -> Iterator[Unit]:
    for unit in units:
        if limit <= 0:
            return
        if unit.part is None:
            limit -= 1
            yield unit
            continue
        every = range(unit.part.first, unit.part.first + unit.part.rows)
        wanted = sorted(unit.part.chosen) if unit.part.chosen is not None else every
        yield replace(unit, part=replace(unit.part, chosen=frozenset(wanted[:limit])))
        limit -= len(wanted)
