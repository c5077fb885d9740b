"""Find out what a URI holds, with which settings a run reads it, and which labels there are."""

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline.config import SourceConfig, is_uri
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.errors import counted as plural
from pipeline.schema import Status
from pipeline.sources.datasource import ImageSource, open_source, read_rows
from pipeline.sources.label_checks import Counted, count_labels, table_notes
from pipeline.sources.listing import SourceFile, list_files
from pipeline.starter.detect import Layout, detect

_WHAT = {
    "folder": "image file",
    "webdataset": "tar shard",
    "parquet": "Parquet file",
    "list": "list",
}
_ADVICE = {
    "folder": "a table can name them (source.labels)",
    "webdataset": "if their json names it otherwise, set source.label_field",
    "parquet": "set source.label_field if another column names it",
    "list": "set source.label_field if another column names it",
}
_TRIED = 3  # images of a list that are looked for


@dataclass(frozen=True)
class Survey:
    """What a data set consists of.

    Attributes:
        source: settings of the source, without those that are as by default.
        labels: number of images of each label, most frequent first, among those looked at.
        unlabelled: number of images without a label, likewise.
        empty: number of images with an empty set of labels, likewise.
        columns: names of the columns of a table, by what they hold.
        summary: one line about it.
        notes: what the user should know, and what could not be known.
    """

    source: Mapping[str, Any]
    labels: Counter[str]
    unlabelled: int
    empty: int
    columns: Mapping[str, str]
    summary: str
    notes: tuple[str, ...]

    @property
    def format(self) -> str:
        """Format of the source, as in the settings."""
        return str(self.source["format"])


def survey(uri: str, fields: Mapping[str, str] | None = None) -> Survey:
    """Recognise the format of a data set, open it as a run does, and count its labels.

    Args:
        uri: files, folders, a glob or brace range.
        fields: settings of the source that the user chose, such as ``label_field``.

    Raises:
        UsageError: there are no files, the storage refuses, nothing is recognised, or a run would
            refuse the source, too.
    """
    layout, source = _opened(detect(uri), fields or {}, uri)
    counted = count_labels(source)
    labels = Counter(dict(sorted(counted.labels.items(), key=lambda item: (-item[1], item[0]))))
    return Survey(
        source=layout.source,
        labels=labels,
        unlabelled=counted.unlabelled,
        empty=counted.empty,
        columns=source.facts.columns,
        summary=_summary(layout, counted),
        notes=(*layout.notes, *source.facts.notes, *_notes(layout, counted)),
    )


def _opened(layout: Layout, fields: Mapping[str, str], uri: str) -> tuple[Layout, ImageSource]:
    """The source as a run opens it; a file of labels that a run refuses is left out."""
    layout = replace(layout, source=layout.source | dict(fields))
    try:
        source = open_source(validated(SourceConfig, dict(layout.source), uri))
        problems = table_notes(source, []) if "labels" in layout.source else ()
    except UsageError as error:
        if "labels" not in layout.source:
            raise
        problems = (str(error),)
    if problems:
        settings = {key: value for key, value in layout.source.items() if key != "labels"}
        layout = replace(layout, source=settings, notes=(*layout.notes, *problems))
        source = open_source(validated(SourceConfig, settings, uri))
    if layout.source["format"] == "list" and "image_root" not in layout.source:
        root, notes = find_image_root(source)
        settings = dict(layout.source) | ({} if root is None else {"image_root": root})
        layout = replace(layout, source=settings, notes=(*layout.notes, *notes))
        source = open_source(validated(SourceConfig, settings, uri))
    return layout, source


def _summary(layout: Layout, counted: Counted) -> str:
    what, files = _WHAT[str(layout.source["format"])], len(layout.files)
    named = plural(len(counted.labels), "class", "classes")
    where = {"folder": " (folders)"}.get(str(layout.source["format"]), "")
    if "labels" in layout.source:
        where = f" ({layout.source['labels']['uri'].rsplit('/', 1)[-1]})"
    seen = " seen" if counted.scope else where
    rows = f" with {plural(counted.images, 'image')}" if layout.source["format"] == "list" else ""
    return f"{plural(files, what)}{rows}, {named}{seen}"


def _notes(layout: Layout, counted: Counted) -> list[str]:
    notes = []
    without = f"{counted.unlabelled:,} of {counted.images:,}"
    if counted.scope:
        notes.append(f"labels are those of {counted.scope}; add classes that are missing")
    if counted.unlabelled and "labels" in layout.source:
        notes.append(f"images that are not in the table: {without}")
    elif counted.unlabelled:
        advice = _ADVICE[str(layout.source["format"])]
        notes.append(f"images without a label: {without}; {advice}")
    return notes


def find_image_root(source: ImageSource) -> tuple[str | None, tuple[str, ...]]:
    """The folder below that of the list that has its first images, and notes.

    Returns:
        None where the first images can be read as it is, or are not found at all.
    """
    rows = list(islice(read_rows(source.source, source.units[0]), _TRIED))
    if any(row["status"] != Status.READ_ERROR for row in rows):
        return None, ()
    key, error = str(rows[0]["key"]), str(rows[0]["error"])
    folder = posixpath.dirname(source.source.uris[0])
    found = None if is_uri(key) or posixpath.isabs(key) else _below(folder, key)
    if found is None:
        unread = f"the first images of the list cannot be read: {error}"
        return None, (f"{unread} source.image_root says what its paths are relative to",)
    return found, (f"paths of the list are relative to {found}",)


def _below(folder: str, key: str) -> str | None:
    try:
        files: Sequence[SourceFile] = list_files(folder, {})
    except UsageError:
        return None
    for file in files:
        for name in (file.name, posixpath.splitext(file.name)[0]):
            if name.endswith(f"/{key}"):
                return f"{folder}/{name.removesuffix(f'/{key}')}"
    return None
