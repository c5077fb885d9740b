"""Reports made by hand: any number of classes and cues, any names, no run behind them."""

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from legrad.heatmaps.codec import encode_maps
from pipeline.audit.overview import MEANINGS, Overview
from pipeline.audit.ranking import CLAIMS, NOT_ASKED, DecoyCheck, with_reliance
from pipeline.report.contents import (
    Chosen,
    ClassPage,
    Ends,
    Grid,
    Limits,
    MeanMap,
    PairPage,
    Picture,
    Report,
)
from pipeline.schema import OWN_LABEL

GRID = (14, 14)
_BESIDE = ["cue", "phi_in_class", "phi_overall", "share_with", "share_without"]


def webp(seed: int, side: int = 192) -> bytes:
    """A picture about as large as a photograph's."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((side, side)).save(buffer, "WEBP", quality=72)
    return buffer.getvalue()


def ranking(
    classes: Sequence[str], cues: Sequence[str], flagged: int, *, reliance: bool = False
) -> pd.DataFrame:
    """All pairs, the first ones flagged, the last one not measured.

    Args:
        reliance: whether those flagged were tested for what uses them.
    """
    count = len(classes) * len(cues)
    rng = np.random.default_rng(0)
    effect = np.sort(np.exp(rng.normal(0, 1, count)))[::-1].copy()
    effect[:flagged] += 20.0
    frame = pd.DataFrame(
        {
            "class": np.resize(np.array(classes, dtype=object), count),
            "cue": np.repeat(np.array(cues, dtype=object), len(classes)),
            "images": np.resize(rng.integers(100, 900, len(classes)), count),
            "share": rng.random(count),
            "share_elsewhere": rng.random(count) / 3,
            "heat_on_cue": rng.random(count) * 3,
            "overlap_rank": rng.random(count),
            "verdict": pd.Series([None] * count, dtype=object),
        }
    )
    for claim in MEANINGS:
        known = claim == "association"
        frame[f"{claim}__effect"] = effect if known else np.nan
        frame[f"{claim}__low"] = effect / 1.5 if known else np.nan
        frame[f"{claim}__high"] = effect * 1.5 if known else np.nan
        frame[f"{claim}__q"] = 0.01 if known else np.nan
        frame[f"{claim}__flag"] = (np.arange(count) < flagged) & known
        frame[f"{claim}__reason"] = "" if known else NOT_ASKED
    low = [f"odds ratio may be as low as {v:.2g}, 1.5 needed" for v in effect / 1.5]
    frame.loc[flagged:, "association__reason"] = low[flagged:]
    frame.loc[count - 1, ["share", "association__effect", "association__low"]] = np.nan
    return with_reliance(frame, tested(frame[:flagged]), CLAIMS[1:]) if reliance else frame


def tested(rows: pd.DataFrame) -> pd.DataFrame:
    """Depth reliance: a probe and a classifier use the first, CLIP does not; else untestable."""
    made = rows[["class", "cue"]].reset_index(drop=True)
    first = made.index == 0
    values = {"clip_reliance": (0.2, -0.1, 0.5), "probe_reliance": (0.88, 0.71, 0.96)}
    values["model_reliance"] = (0.66, 0.52, 0.81)
    for claim, numbers in values.items():
        for field, number in zip(("effect", "low", "high"), numbers, strict=True):
            made[f"{claim}__{field}"] = np.where(first, number, np.nan)
        made[f"{claim}__q"] = np.where(first, 0.01, np.nan)
        made[f"{claim}__flag"] = first & (claim != "clip_reliance")
    made["probe_reliance__rival"] = made["model_reliance__rival"] = "zebra"
    more = {"flips": 0.4, "flips_low": 0.3, "flips_high": 0.5, "flips_images": 60.0}
    for field, number in (more | {"taken": 0.25, "heat": 3.5}).items():
        made[f"model_reliance__{field}"] = np.where(first, number, np.nan)
    why = "the fall may be as low as -0.10 sd, 0.5 needed"
    made["clip_reliance__reason"] = np.where(first, why, "not testable: 3 images, 30 needed")
    untestable = np.where(first, "", "not testable: 3 images, 30 needed")
    made["probe_reliance__reason"] = made["model_reliance__reason"] = untestable
    return made


def made_up(
    classes: Sequence[str],
    cues: Sequence[str],
    *,
    flagged: int = 3,
    pages: int = 10,
    each: int = 3,
    image: str = "shard/{}.jpg",
    reliance: bool = False,
) -> Report:
    """A report with pictures, maps and pages.

    Args:
        image: name of an image by its number.
        reliance: see `ranking`.
    """
    table = ranking(classes, cues, flagged, reliance=reliance)
    rng = np.random.default_rng(1)
    chosen: list[str] = []

    def ends() -> Ends:
        names = [image.format(len(chosen) + n) for n in range(2 * each)]
        chosen.extend(names)
        made = [Chosen(name, float(rng.normal()), 1.0) for name in names]
        return Ends(tuple(made[:each]), tuple(made[each:]))

    x = np.linspace(-1, 1, 64)
    curves = {"score": x, "in_class": np.exp(-((x - 0.4) ** 2) * 9), "elsewhere": np.exp(-(x**2))}
    pairs = []
    for row in table.head(pages).to_dict(orient="records"):
        together = pd.DataFrame([[c, 0.1, 0.2, 0.3, 0.4] for c in cues[:8]], columns=_BESIDE)
        beside = table[table["cue"] == row["cue"]].head(12)
        named = {str(column): value for column, value in row.items()}
        pairs.append(PairPage(named, pd.DataFrame(curves), 0.1, together, beside, ends()))
    smooth = np.outer(np.hanning(GRID[0]), np.hanning(GRID[1]))
    maps = [MeanMap(cues[0], smooth, smooth - smooth.mean(), smooth > 0.5)]
    groups = dict(tuple(table.groupby("class")))
    found = {str(p.row["class"]): {str(p.row["cue"]): p.ends} for p in pairs}
    class_pages = [
        ClassPage(c, 200, groups[c].head(8), len(cues), maps, found.get(c, {})) for c in classes
    ]
    grids = {}
    for name in chosen:
        for query in (*cues, OWN_LABEL)[: 200 // len(cues)] if len(cues) < 50 else (OWN_LABEL,):
            cells, peaks = encode_maps((smooth * rng.random(GRID))[None].astype(np.float32))
            grids[query, name] = Grid(cells[0].tobytes(), float(peaks[0]))
    pictures = {
        name: Picture(webp(n % 40), (400, 300), (0.125, 0.0, 0.75, 1.0))
        for n, name in enumerate(chosen)
    }
    return Report(
        head=overview(classes, cues, flagged),
        identity={"results": "s3://bucket/results", "seed": "0"},
        limits=Limits(),
        grid=GRID,
        table=table,
        titles={cue: cue for cue in cues},
        pairs=pairs,
        classes=class_pages,
        pictures=pictures,
        grids=grids,
    )


def overview(classes: Sequence[str], cues: Sequence[str], flagged: int) -> Overview:
    """The head of such a report."""
    return Overview(
        dataset="made up",
        model="mini",
        images=200 * len(classes),
        failed={"decode_error": 2},
        unlabelled=1,
        copies=0,
        classes=dict.fromkeys(classes, 200),
        cues=tuple(cues),
        decoys=("a_key",),
        measured=tuple(cues),
        not_measured={"a_key": "its scores show no two states"},
        flagged={"association": flagged, "clip_reliance": 0, "probe_reliance": 0},
        check=DecoyCheck(len(classes), 1, 0, 0, 0, 0.9, 0.5),
        caveats=("Rows without results count nowhere.",),
        meanings=MEANINGS,
    )
