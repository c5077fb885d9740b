"""Audit -> report: all that the pages show; files of the run are read as seldom as can be."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from legrad.queries.query import Role
from pipeline.audit.findings import pair_scores
from pipeline.audit.names import Names, has_maps
from pipeline.auditor import Audit
from pipeline.report import choice
from pipeline.report.contents import (
    ClassPage,
    Ends,
    Grid,
    Limits,
    MeanMap,
    PairPage,
    Report,
)
from pipeline.report.edits import edit_pictures
from pipeline.report.thumbnails import fetch_pictures, read_grids
from pipeline.schema import OWN_LABEL

_FOREST_ROWS = 12
_CLASS_ROWS = 8
_CLASS_MAPS = 4
_GALLERIES = 3
_BESIDE = 8


def gather(audit: Audit, limits: Limits) -> Report:
    """Decide what is shown, and read it."""
    table = audit.rank()
    chosen = choice.paged(table, limits.pages)
    known = audit.findings.population
    galleries = _gallery_cues(table, audit.classes)
    total = choice.affordable(limits, len(table), len(chosen), len(audit.classes))
    wanted = _shares(chosen, galleries, limits.each, total) if limits.images else {}
    ends = choice.find_ends(audit.results, audit.findings, wanted)
    pairs = _pair_pages(audit, table, chosen, ends, limits)
    names = {one.image_id for end in ends.values() for one in (*end.high, *end.low)}
    baseline = _baseline(audit)
    head = audit.summary
    return Report(
        head=head,
        identity=_identity(audit),
        limits=limits,
        grid=audit.results.grid,
        table=table,
        titles={q.name: q.name.replace("_", " ") for q in audit.results.queries},
        pairs=pairs,
        classes=_class_pages(audit, table, galleries, ends, dict(head.classes)),
        pictures=fetch_pictures(audit.results, names, limits.side),
        grids=_grids(audit, ends, baseline) if known.classes else {},
        baseline=baseline,
    )


def _gallery_cues(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, list[str]]:
    """Class -> the cues that it is shown by: the flagged ones, or the strongest."""
    found: dict[str, list[str]] = {cls: [] for cls in classes}
    usable = table[table["association__effect"].notna()]
    for cls, rows in usable.groupby("class", sort=False):
        flagged = rows[rows["association__flag"]]["cue"].head(_GALLERIES)
        found[str(cls)] = list(flagged) or list(rows["cue"].head(1))
    return found


def _shares(
    chosen: pd.DataFrame, galleries: Mapping[str, Sequence[str]], each: int, total: int
) -> dict[choice.Pair, int]:
    """Pictures of every end; a class's gallery shares those of its pair's page."""
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
    edits = edit_pictures(audit, limits)
    by_cue = dict(tuple(table.groupby("cue")))
    pages = []
    for row in chosen.to_dict(orient="records"):
        cls, cue = str(row["class"]), str(row["cue"])
        scores = pair_scores(audit.findings, names.cue(cue), names.code(cls))
        page = PairPage(
            row={str(key): value for key, value in row.items()},
            densities=scores.densities,
            threshold=scores.threshold,
            beside=scores.beside.head(_BESIDE),
            elsewhere=_forest_rows(by_cue[cue], cls),
            ends=ends.get((cls, cue), Ends()),
            edits=edits.get((cls, cue), ()),
        )
        pages.append(page)
    return pages


def _forest_rows(rows: pd.DataFrame, cls: str) -> pd.DataFrame:
    """The strongest classes of a cue, and this one."""
    usable = rows[rows["association__effect"].notna()]
    ordered = usable.sort_values("association__low", ascending=False)
    mine = ordered["class"] == cls
    return pd.concat([ordered[mine], ordered[~mine].head(_FOREST_ROWS - 1)]).sort_values(
        "association__effect", ascending=False
    )


def _class_pages(
    audit: Audit,
    table: pd.DataFrame,
    galleries: Mapping[str, Sequence[str]],
    ends: Mapping[choice.Pair, Ends],
    sizes: Mapping[str, int],
) -> list[ClassPage]:
    groups = dict(tuple(table.groupby("class")))
    return [
        ClassPage(
            label=cls,
            images=sizes[cls],
            rows=groups.get(cls, table.head(0)).head(_CLASS_ROWS),
            total=len(groups.get(cls, ())),
            maps=_mean_maps(audit, cls, galleries[cls]),
            galleries={cue: ends[cls, cue] for cue in galleries[cls] if (cls, cue) in ends},
        )
        for cls in audit.classes
    ]


def _mean_maps(audit: Audit, cls: str, cues: Sequence[str]) -> list[MeanMap]:
    """The class's own mean map and those of its cues, as far as they are stored."""
    names = Names(audit.results, audit.findings)
    if not audit.settings.maps:
        return []
    own = names.class_queries.get(cls)
    queries = [own, *cues] if own else list(cues)
    stored = [q for q in queries if has_maps(audit.results, q)]
    if own and own not in stored and has_maps(audit.results, OWN_LABEL):
        stored = [own, *stored]
    made = []
    for query in stored[:_CLASS_MAPS]:
        mean, change = audit.mean_map(cls, query), audit.difference_map(cls, query)
        if np.isfinite(mean).all():
            made.append(MeanMap(query, mean, change.difference, change.differs))
    return made


def _baseline(audit: Audit) -> str | None:
    named = [q.name for q in audit.results.queries if q.role is Role.BASELINE]
    return next((name for name in named if has_maps(audit.results, name)), None)


def _grids(
    audit: Audit, ends: Mapping[choice.Pair, Ends], baseline: str | None
) -> dict[tuple[str, str], Grid]:
    """Maps of the shown images: of the cues they are shown for, of their class, of the baseline."""
    wanted: dict[str, list[str]] = defaultdict(list)
    some_own = bool(Names(audit.results, audit.findings).class_maps)
    for (_, cue), end in ends.items():
        names = [one.image_id for one in (*end.high, *end.low)]
        if has_maps(audit.results, cue):
            wanted[cue] += names
        if some_own:
            wanted[OWN_LABEL] += names
        if baseline is not None:
            wanted[baseline] += names
    return read_grids(audit.results, wanted)


def _identity(audit: Audit) -> dict[str, str]:
    """What made these numbers, in words."""
    run, metadata = audit.results.run, audit.results.run["metadata"]
    model = metadata.get("model", {})
    gates = audit.settings.gates.model_dump()
    return {
        "results": audit.results.folder.uri,
        "run": str(run.get("digest", ""))[:16],
        "made": str(run.get("created", "")),
        "model": audit.summary.model,
        "weights": str(model.get("digest", model.get("weights_digest", "")))[:16],
        "grid": " x ".join(map(str, audit.results.grid)),
        "gates": ", ".join(f"{key} {value:g}" for key, value in gates.items()),
        "seed": str(audit.settings.seed),
        "software": ", ".join(f"{k} {v}" for k, v in metadata.get("software", {}).items()),
    }
