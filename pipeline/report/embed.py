"""Values for the scripts of the pages: JSON that is safe within HTML, and maps as base64."""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from legrad.heatmaps.codec import encode_maps
from legrad.heatmaps.overlay import heat_colours
from pipeline.audit.ranking import CLAIMS, NO_CLASSIFIER, NOT_ASKED
from pipeline.report.contents import Chosen, Grid, MeanMap, Report
from pipeline.report.words import SHORT_NAMES
from pipeline.schema import OWN_LABEL

_DIGITS = 3
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
_ESCAPES |= {"\u2028": "\\u2028", "\u2029": "\\u2029"}
NUMBERS = ("share", "share_elsewhere", "heat_on_cue")
FIELDS = ("effect", "low", "high")


def to_json(value: Any) -> str:
    """Compact JSON that is safe inside ``<script>``; NaN and infinity become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for plain, escaped in _ESCAPES.items():
        text = text.replace(plain, escaped)
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def table_values(report: Report, links: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The ranking by columns, with names and reasons stored once and referred to by number.

    Args:
        report: the report whose table is embedded.
        links: (class, cue) -> file name of its page, without the extension.
    """
    table = report.table
    classes, class_codes = _pointed(table["class"])
    cues, cue_codes = _pointed(table["cue"])
    pairs = table[["class", "cue"]].itertuples(index=False, name=None)
    sizes = dict(zip(table["class"], table["images"].tolist(), strict=True))
    columns: dict[str, Any] = {
        "classes": classes,
        "cues": [report.titles.get(cue, cue) for cue in cues],
        "class": class_codes,
        "cue": cue_codes,
        "verdict": {row: text for row, text in enumerate(table["verdict"].fillna("")) if text},
        "images": [sizes[name] for name in classes],
        "page": {row: links[pair] for row, pair in enumerate(pairs) if pair in links},
    }
    for name in NUMBERS:
        columns[name] = _rounded(table[name]) if name in table else []
    columns["claims"] = {
        claim: {"name": SHORT_NAMES[claim]} | _claim(table, claim) for claim in report.head.meanings
    }
    return columns


def _claim(table: pd.DataFrame, claim: str) -> dict[str, Any]:
    """Columns of a claim; rows with the most frequent reason have none."""
    if not asked(table, claim):
        return {"asked": False}
    reasons, codes = _pointed(table[f"{claim}__reason"].fillna(""))
    usual = max(set(codes), key=codes.count, default=0)
    columns: dict[str, list[Any]] = {f: _rounded(table[f"{claim}__{f}"]) for f in FIELDS}
    columns["flag"] = [1 if flag else None for flag in table[f"{claim}__flag"]]
    columns["reason"] = [None if code == usual else code for code in codes]
    sparse = {name: _filled(values) for name, values in columns.items()}
    return {"asked": True, "reasons": reasons, "usual": usual} | sparse


def asked(table: pd.DataFrame, claim: str) -> bool:
    """Whether the audit tested a claim."""
    return claim == CLAIMS[0] or not bool(
        table[f"{claim}__reason"].isin([NOT_ASKED, NO_CLASSIFIER]).all()
    )


def _filled(values: list[Any]) -> list[Any] | dict[int, Any]:
    """The values, or row -> value where at most a third of the rows have one."""
    filled = {row: value for row, value in enumerate(values) if value is not None}
    return filled if 3 * len(filled) < len(values) else values


def _pointed(column: pd.Series) -> tuple[list[str], list[int]]:
    codes, names = pd.factorize(column.astype(object))
    return [str(name) for name in names], [int(code) for code in codes]


def _rounded(column: pd.Series) -> list[float | int | None]:
    return [_short(value) for value in column.to_numpy(float)]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short == int(short) else short


def pictures(report: Report, chosen: Sequence[Chosen], cue: str) -> list[dict[str, Any]]:
    """Maps of the images of a page, in the order of the page."""
    names = {"cue": cue, "class": OWN_LABEL, "baseline": report.baseline or ""}
    return [
        {
            key: [*packed(report.grids[query, image.image_id]), query]
            for key, query in names.items()
            if (query, image.image_id) in report.grids
        }
        for image in chosen
    ]


def packed(grid: Grid) -> list[Any]:
    """[base64 of the bytes, peak]."""
    return [base64.b64encode(grid.cells).decode(), _short(grid.peak)]


def mean_maps(maps: Iterable[MeanMap]) -> list[dict[str, Any]]:
    """Mean and difference in 8 bits each, and a grid with the difference's sign and test."""
    return [
        {
            "mean": packed(_encoded(maps_of.mean)),
            "difference": packed(_encoded(np.abs(maps_of.difference))),
            "marks": base64.b64encode(_marks(maps_of)).decode(),
        }
        for maps_of in maps
    ]


def _encoded(values: NDArray[np.float64]) -> Grid:
    cells, peaks = encode_maps(values[None].astype(np.float32))
    return Grid(cells[0].tobytes(), float(peaks[0]))


def _marks(maps_of: MeanMap) -> bytes:
    """A byte per cell: 1 if the class has less heat, plus 2 if the difference is significant."""
    return ((maps_of.difference < 0) + 2 * maps_of.differs).astype(np.uint8).tobytes()


def colours() -> str:
    """The colour scales as a script, 256 x RGB in hex: heat, and both signs of a difference."""
    from matplotlib import colormaps

    ramp = np.linspace(0, 1, 256)
    tables = {
        "heat": heat_colours(),
        "more": colormaps["YlOrBr"](0.15 + 0.75 * ramp)[:, :3] * 255,
        "less": colormaps["PuBu"](0.15 + 0.75 * ramp)[:, :3] * 255,
    }
    texts = {
        name: np.rint(table).astype(np.uint8).tobytes().hex() for name, table in tables.items()
    }
    return f"window.legradColours = {json.dumps(texts)};\n"
