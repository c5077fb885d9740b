"""Which pairs get a page, how many pictures each page has, and which images they show."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.audit.findings import Findings
from pipeline.audit.scores import Batch, batches
from pipeline.report.contents import Chosen, Ends, Limits
from pipeline.results import Results

Pair = tuple[str, str]
_PLANNED_SHARE = 0.9
"""Share of the allowed size that is planned for."""
_ROW, _PAIR, _CLASS, _PICTURE = 50e-6, 29e-3, 6.5e-3, 7e-3
"""Megabytes of a table row, a pair's page, a class's page, and a picture with its maps."""


def paged(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Rows of the ranking that get a page: all flagged ones, and the first ``most``.

    Pairs that could not be tested get no page, because there is nothing to show.
    """
    flags = [name for name in table.columns if name.endswith("__flag")]
    flagged = table[flags].any(axis=1).to_numpy(bool)
    tested = table["association__effect"].notna().to_numpy() & (np.arange(len(table)) < most)
    return table[flagged | tested]


def affordable(limits: Limits, rows: int, pages: int, classes: int) -> int:
    """Number of pictures that fit, given the table's rows and the pages of pairs and classes."""
    rest = limits.megabytes * _PLANNED_SHARE - rows * _ROW - pages * _PAIR - classes * _CLASS
    return max(0, int(rest / (_PICTURE * (limits.side / 192) ** 2)))


def shares(pages: int, most: int, total: int) -> list[int]:
    """Number of pictures at each end of each page: equal shares, then the rest by rank."""
    if not pages:
        return []
    fewest = min(most, total // (2 * pages))
    spare = total - 2 * pages * fewest
    counts = []
    for _ in range(pages):
        extra = min(most - fewest, spare // 2)
        spare -= 2 * extra
        counts.append(fewest + extra)
    return counts


def find_ends(results: Results, findings: Findings, wanted: Mapping[Pair, int]) -> dict[Pair, Ends]:
    """Images with the highest and the lowest scores of each pair, in one pass over the scores.

    Args:
        wanted: (class, cue) -> number of images at each end.

    Returns:
        The ends of each pair. Where presence is measured, images at the high end have the cue and
        images at the low end do not.
    """
    cues = list(dict.fromkeys(cue for (_, cue), count in wanted.items() if count))
    kept: dict[str, list[pd.DataFrame]] = {cue: [] for cue in cues}
    for batch in batches(results, findings.population, cues, ["image_id"]):
        for cue in cues:
            kept[cue].append(_extremes(batch, cue, findings, wanted))
    result = {}
    for cue in cues:
        frame = pd.concat(kept[cue])
        groups = dict(tuple(frame.groupby("code")))
        for (cls, name), count in wanted.items():
            if name == cue and count:
                of_class = groups.get(findings.population.index[cls], frame.head(0))
                measured = bool(findings.presence.measured[_number(findings, cue)])
                result[cls, cue] = _ends(of_class, count, measured=measured)
    return result


def _extremes(
    batch: Batch, cue: str, findings: Findings, wanted: Mapping[Pair, int]
) -> pd.DataFrame:
    counts = {findings.population.index[cls]: n for (cls, name), n in wanted.items() if name == cue}
    shown = np.isin(batch.members.codes, list(counts))
    rows, codes = batch.members.rows[shown], batch.members.codes[shown]
    scores, fitted = batch.scores(cue)[rows], batch.codes[rows]
    number = _number(findings, cue)
    measured = bool(findings.presence.measured[number])
    presence = (
        findings.presence.of(number, fitted, scores) if measured else np.full(len(rows), np.nan)
    )
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


def _number(findings: Findings, cue: str) -> int:
    return findings.presence.histograms.cues.index(cue)
