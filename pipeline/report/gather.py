"""Audit -> report: collects all that the pages show, in few passes over the run's files."""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from legrad.queries.query import Role
from pipeline.audit.findings import pair_scores
from pipeline.audit.names import Names, has_maps
from pipeline.audit.suspicion_scan import worth_a_look
from pipeline.auditor import Audit
from pipeline.discovery import apart, listed, stored_candidates
from pipeline.report import choice
from pipeline.report.contents import (
    ClassPage,
    Ends,
    Grid,
    Limits,
    MeanMap,
    PairPage,
    Report,
    records,
)
from pipeline.report.shown_images import edit_pictures, fetch_pictures, read_grids
from pipeline.results import Results
from pipeline.schema import OWN_LABEL

_FOREST_ROWS = 12
_CLASS_ROWS = 8
_CLASS_MAPS = 4
_GALLERIES = 3
_BESIDE = 8
_EXACT_ROWS = 20
_SUSPICIOUS = _DISCOVERED = 12
_EDITED_PAIRS = 40


def gather(audit: Audit, limits: Limits, command: Sequence[str] | None = None) -> Report:
    """Decide what is shown, and read it; ``command`` as in `build_report`."""
    table = audit.rank()
    chosen = choice.paged(table, limits.pages)
    galleries = gallery_cues(table, audit.classes)
    total = choice.affordable(limits, len(table), len(chosen), len(audit.classes))
    wanted = _shares(chosen, galleries, limits.each, total) if limits.images else {}
    ends = choice.find_ends(audit.results, audit.findings, wanted)
    pairs = _pair_pages(audit, table, chosen, ends, limits)
    names = {image.image_id for end in ends.values() for image in end.high + end.low}
    baseline = baseline_query(audit)
    return Report(
        head=audit.summary,
        identity=identity(audit),
        limits=limits,
        grid=audit.results.grid,
        table=table,
        titles=titles(audit.results),
        pairs=pairs,
        classes=_class_pages(audit, table, galleries, ends, dict(audit.summary.classes)),
        pictures=fetch_pictures(audit.results, names, limits.side),
        grids=end_grids(audit, ends, baseline) if audit.findings.population.classes else {},
        baseline=baseline,
        exact=exact_rows(audit),
        suspicious=suspicious_rows(audit),
        discovered=discovered_rows(audit, pictures=limits.images),
        command=command or ("legrad", "audit", audit.results.folder.uri),
    )


def exact_rows(audit: Audit) -> list[dict[str, Any]]:
    """The strongest flagged properties."""
    flagged = audit.exact["association__flag"].to_numpy(bool)
    return records(audit.exact[flagged].head(_EXACT_ROWS))


def suspicious_rows(audit: Audit) -> list[dict[str, Any]]:
    """The pairs that are worth a look, the most unusual first."""
    return records(worth_a_look(audit.rank(decoys=True)).head(_SUSPICIOUS))


def discovered_rows(audit: Audit, *, pictures: bool = True) -> list[dict[str, Any]]:
    """Candidates of the last discovery, the confirmed ones first, with pictures."""
    found = stored_candidates(audit.results, audit.findings.population.total)
    beside, on_class = apart(listed(found))
    rows = records(beside.head(_DISCOVERED).assign(on_class=False))
    rows += records(on_class.head(_DISCOVERED).assign(on_class=True))
    for row in rows:
        path, row["picture"] = row["picture"], ""
        if pictures and path and (file := audit.results.folder.root.child("_run", path)).exists():
            row["picture"] = f"data:image/webp;base64,{b64encode(file.read()).decode()}"
    return rows


def titles(results: Results) -> dict[str, str]:
    """Query -> its name for people."""
    return {query.name: query.name.replace("_", " ") for query in results.queries}


def gallery_cues(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, list[str]]:
    """Class -> cues whose images its page shows: the flagged ones, or else the strongest."""
    cues: dict[str, list[str]] = {cls: [] for cls in classes}
    usable = table[table["association__effect"].notna()]
    for cls, rows in usable.groupby("class", sort=False):
        flagged = rows[rows["association__flag"]]["cue"].head(_GALLERIES)
        cues[str(cls)] = list(flagged) or list(rows["cue"].head(1))
    return cues


def _shares(
    chosen: pd.DataFrame, galleries: Mapping[str, Sequence[str]], each: int, total: int
) -> dict[choice.Pair, int]:
    """Number of pictures at each end of each pair; a class's gallery shows those of its pairs."""
    order = list(chosen[["class", "cue"]].itertuples(index=False, name=None))
    order += [(cls, cue) for cls, cues in galleries.items() for cue in cues]
    unique = list(dict.fromkeys(order))
    return dict(zip(unique, choice.shares(len(unique), each, total), strict=True))


def _pair_pages(
    audit: Audit,
    table: pd.DataFrame,
    chosen: pd.DataFrame,
    ends: Mapping[choice.Pair, Ends],
    limits: Limits,
) -> list[PairPage]:
    names = Names(audit.results, audit.findings)
    by_cue = dict(tuple(table.groupby("cue")))
    pages, with_edits = [], 0
    for row in records(chosen):
        pair = str(row["class"]), str(row["cue"])
        page = pair_page(audit, names, by_cue[pair[1]], row, ends.get(pair, Ends()))
        edits = edit_pictures(audit, *pair, limits) if with_edits < _EDITED_PAIRS else []
        with_edits += bool(edits)
        pages.append(replace(page, edits=edits))
    return pages


def pair_page(
    audit: Audit, names: Names, of_cue: pd.DataFrame, row: Mapping[str, Any], ends: Ends
) -> PairPage:
    """What a pair's page shows, without edits.

    Args:
        of_cue: rows of the ranking for its cue.
        row: its own one.
    """
    cls, cue = str(row["class"]), str(row["cue"])
    scores = pair_scores(audit.findings, names.cue(cue), names.code(cls))
    return PairPage(
        row=row,
        densities=scores.densities,
        threshold=scores.threshold,
        beside=scores.beside.head(_BESIDE),
        elsewhere=_forest_rows(of_cue, cls),
        ends=ends,
    )


def _forest_rows(rows: pd.DataFrame, cls: str) -> pd.DataFrame:
    """Rows of a forest plot: this class, and those with the strongest association."""
    usable = rows[rows["association__effect"].notna()]
    ordered = usable.sort_values("association__low", ascending=False)
    this_class = ordered["class"] == cls
    return pd.concat(
        [ordered[this_class], ordered[~this_class].head(_FOREST_ROWS - 1)]
    ).sort_values("association__effect", ascending=False)


def _class_pages(
    audit: Audit,
    table: pd.DataFrame,
    galleries: Mapping[str, Sequence[str]],
    ends: Mapping[choice.Pair, Ends],
    sizes: Mapping[str, int],
) -> list[ClassPage]:
    groups = dict(tuple(table.groupby("class")))
    return [
        class_page(audit, cls, sizes[cls], groups.get(cls, table.head(0)), galleries[cls], ends)
        for cls in audit.classes
    ]


def class_page(
    audit: Audit,
    cls: str,
    images: int,
    rows: pd.DataFrame,
    cues: Sequence[str],
    ends: Mapping[choice.Pair, Ends],
) -> ClassPage:
    """What a class's page shows.

    Args:
        images: number of its images.
        rows: its rows of the ranking.
        cues: those whose maps and images are shown.
        ends: images of the class with and without them.
    """
    return ClassPage(
        label=cls,
        images=images,
        rows=rows.head(_CLASS_ROWS),
        total=len(rows),
        maps=_mean_maps(audit, cls, cues),
        galleries={cue: ends[cls, cue] for cue in cues if (cls, cue) in ends},
    )


def _mean_maps(audit: Audit, cls: str, cues: Sequence[str]) -> list[MeanMap]:
    """The mean map of the class itself and those of its cues, where maps are stored."""
    names = Names(audit.results, audit.findings)
    if not audit.settings.maps:
        return []
    class_query = names.class_queries.get(cls)
    queries = [class_query, *cues] if class_query else list(cues)
    stored = [q for q in queries if has_maps(audit.results, q)]
    if class_query and class_query not in stored and has_maps(audit.results, OWN_LABEL):
        stored = [class_query, *stored]
    mean_maps = []
    for query in stored[:_CLASS_MAPS]:
        mean, change = audit.mean_map(cls, query), audit.difference_map(cls, query)
        if np.isfinite(mean).all():
            mean_maps.append(MeanMap(query, mean, change.difference, change.differs))
    return mean_maps


def baseline_query(audit: Audit) -> str | None:
    """A baseline whose maps are stored."""
    baselines = [q.name for q in audit.results.queries if q.role is Role.BASELINE]
    return next((name for name in baselines if has_maps(audit.results, name)), None)


def end_grids(
    audit: Audit, ends: Mapping[choice.Pair, Ends], baseline: str | None
) -> dict[tuple[str, str], Grid]:
    """Maps of the shown images: of the cues they show, of their class, and of the baseline."""
    wanted: dict[str, list[str]] = defaultdict(list)
    has_class_maps = bool(Names(audit.results, audit.findings).class_maps)
    for (_, cue), end in ends.items():
        names = [image.image_id for image in end.high + end.low]
        if has_maps(audit.results, cue):
            wanted[cue] += names
        if has_class_maps:
            wanted[OWN_LABEL] += names
        if baseline is not None:
            wanted[baseline] += names
    return read_grids(audit.results, wanted)


def identity(audit: Audit) -> dict[str, str]:
    """What produced the numbers of the report: name -> text."""
    run, metadata = audit.results.run, audit.results.run["metadata"]
    model = metadata["model"]
    gates = audit.settings.gates.model_dump()
    return {
        "results": audit.results.folder.uri,
        "run": str(run["digest"])[:16],
        "made": str(run["created"]),
        "model": audit.summary.model,
        "weights": str(model["weights_sha256"])[:16],
        "grid": " x ".join(map(str, audit.results.grid)),
        "gates": ", ".join(f"{key} {value:g}" for key, value in gates.items()),
        "seed": str(audit.settings.seed),
        "software": ", ".join(f"{k} {v}" for k, v in metadata["software"].items()),
    }
