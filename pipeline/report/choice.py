"""Which pairs get a page, how many pictures each, and which images those are."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.audit.findings import Findings
from pipeline.audit.scores import Batch, batches
from pipeline.report.contents import Chosen, Ends, Limits
from pipeline.results import Results

Pair = tuple[str, str]
_SAFE = 0.9  # of what is allowed is planned for
_ROW, _PAIR, _CLASS, _PICTURE = 50e-6, 29e-3, 6.5e-3, 7e-3  # megabytes, maps of a picture with it


def paged(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Rows of the ranking with a page of their own: all flagged ones, and the first ``most``.

    Pairs that could not be tested have nothing to show and fill no page.
    """
    flags = [name for name in table.columns if name.endswith("__flag")]
    flagged = table[flags].any(axis=1).to_numpy(bool)
    tested = table["association__effect"].notna().to_numpy() & (np.arange(len(table)) < most)
    return table[flagged | tested]


def affordable(limits: Limits, rows: int, pages: int, classes: int) -> int:
    """Pictures that fit beside a table of so many rows and so many pages."""
    rest = limits.megabytes * _SAFE - rows * _ROW - pages * _PAIR - classes * _CLASS
    return max(0, int(rest / (_PICTURE * (limits.side / 192) ** 2)))


def shares(pages: int, most: int, total: int) -> list[int]:
    """Pictures of each end of each page: an even share first, the rest in order of rank."""
    if not pages:
        return []
    least = min(most, total // (2 * pages))
    spare = total - 2 * pages * least
    given = []
    for _ in range(pages):
        more = min(most - least, spare // 2)
        spare -= 2 * more
        given.append(least + more)
    return given


def find_ends(results: Results, found: Findings, wanted: Mapping[Pair, int]) -> dict[Pair, Ends]:
    """Images at both ends of the cues' scores, by one pass over them.

    Args:
        wanted: (class, cue) -> how many at each end.

    Returns:
        Where presence is measured, the high end has the cue and the low end lacks it.
    """
    cues = list(dict.fromkeys(cue for (_, cue), count in wanted.items() if count))
    kept: dict[str, list[pd.DataFrame]] = {cue: [] for cue in cues}
    for batch in batches(results, found.population, cues, ["image_id"]):
        for cue in cues:
            kept[cue].append(_extremes(batch, cue, found, wanted))
    result = {}
    for cue in cues:
        frame = pd.concat(kept[cue])
        groups = dict(tuple(frame.groupby("code")))
        for (cls, name), count in wanted.items():
            if name == cue and count:
                mine = groups.get(found.population.index[cls], frame.head(0))
                measured = bool(found.presence.measured[_place(found, cue)])
                result[cls, cue] = _ends(mine, count, measured=measured)
    return result


def _extremes(batch: Batch, cue: str, found: Findings, wanted: Mapping[Pair, int]) -> pd.DataFrame:
    counts = {found.population.index[cls]: n for (cls, name), n in wanted.items() if name == cue}
    rows = np.flatnonzero(np.isin(batch.codes, list(counts)))
    scores, codes = batch.scores(cue)[rows], batch.codes[rows]
    place = _place(found, cue)
    measured = bool(found.presence.measured[place])
    presence = found.presence.of(place, codes, scores) if measured else np.full(len(rows), np.nan)
    frame = pd.DataFrame({"code": codes, "score": scores, "presence": presence, "row": rows})
    ordered = frame.sort_values(["score", "row"])
    most = max(counts.values(), default=0)
    groups = ordered.groupby("code")
    ends = pd.concat([groups.head(most), groups.tail(most)])
    ends = ends[~ends.index.duplicated()]
    ends["image_id"] = batch.table["image_id"].take(pa.array(ends["row"])).to_pylist()
    return ends


def _ends(frame: pd.DataFrame, count: int, *, measured: bool) -> Ends:
    ordered = frame.sort_values(["score", "image_id"])
    if measured:
        low, high = ordered[ordered["presence"] <= 0.5], ordered[ordered["presence"] > 0.5]
    else:
        half = len(ordered) // 2
        low, high = ordered.iloc[:half], ordered.iloc[half:]
    return Ends(_chosen(high.iloc[::-1].head(count)), _chosen(low.head(count)))


def _chosen(frame: pd.DataFrame) -> tuple[Chosen, ...]:
    columns: Sequence[str] = ("image_id", "score", "presence")
    return tuple(
        Chosen(str(name), float(score), float(presence))
        for name, score, presence in frame[list(columns)].itertuples(index=False)
    )


def _place(found: Findings, cue: str) -> int:
    return found.presence.histograms.cues.index(cue)
