"""What a report shows, as plain values that need neither storage nor HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.overview import Overview


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as column -> value."""
    found = rows.to_dict(orient="records")
    return [{str(name): value for name, value in row.items()} for row in found]


@dataclass(frozen=True)
class Limits:
    """Limits of a report's content and size.

    Attributes:
        images: whether single images are shown; otherwise a report has aggregates only, without
            pictures, maps or names of single images.
        pages: number of pairs that get a page; flagged pairs always do.
        each: pictures of a pair with the cue, and as many without it.
        megabytes: approximate size limit of the folder; pages come first, pictures use the rest,
            and the strongest findings get theirs first.
        side: length of a picture's longer side, in pixels.
    """

    images: bool = True
    pages: int = 200
    each: int = 12
    megabytes: float = 20.0
    side: int = 192


class Chosen(NamedTuple):
    """An image that is shown for a cue.

    Attributes:
        image_id: id of the image.
        score: cosine of the image and the cue.
        presence: probability that the image has the cue; NaN where it is not measured.
    """

    image_id: str
    score: float
    presence: float


@dataclass(frozen=True)
class Ends:
    """Images of a class at both ends of a cue's scores, the most extreme first."""

    high: tuple[Chosen, ...] = ()
    low: tuple[Chosen, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A small copy of an image.

    Attributes:
        data: WebP bytes; None where the image could not be read.
        size: (width, height) of the original in pixels.
        box: left, top, width, height of the map's grid, as shares of the picture's sides.
        why: the reason, where there is no copy.
    """

    data: bytes | None
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    why: str = ""


@dataclass(frozen=True)
class EditPicture:
    """One edit, ready for a page.

    Attributes:
        deleted: True if the cue was deleted, False if it was pasted in.
        before, after, control: data URIs of small WebP pictures.
        change, control_change: change of the probe's logit, as a share of the distance of the
            classes.
    """

    deleted: bool
    before: str
    after: str
    control: str
    change: float
    control_change: float


class Grid(NamedTuple):
    """An 8-bit map: value = byte / 255 * peak."""

    cells: bytes
    peak: float


@dataclass(frozen=True)
class PairPage:
    """A class and a cue.

    Attributes:
        row: its row of the ranking.
        densities: score densities, columns score, in_class, elsewhere.
        threshold: score from which the cue counts as present; NaN if not measured.
        beside: cues that occur with this one, see `Cooccurrence.beside`.
        elsewhere: rows of the ranking for this cue in several classes, this class included.
        ends: images with and without the cue.
        edits: images into which the cue was pasted or from which it was deleted.
    """

    row: Mapping[str, Any]
    densities: pd.DataFrame
    threshold: float
    beside: pd.DataFrame
    elsewhere: pd.DataFrame
    ends: Ends = Ends()
    edits: Sequence[EditPicture] = ()


@dataclass(frozen=True)
class MeanMap:
    """A class's mean map of a query, and its difference from that of all images.

    Attributes:
        query: its name.
        mean: (h, w).
        difference: (h, w), signed.
        differs: (h, w) cells where the difference is significant.
    """

    query: str
    mean: NDArray[np.float64]
    difference: NDArray[np.float64]
    differs: NDArray[np.bool_]


@dataclass(frozen=True)
class ClassPage:
    """A class.

    Attributes:
        label: the class.
        images: number of its images.
        rows: rows of the ranking for its strongest cues.
        total: number of its cues in the ranking.
        maps: mean maps, that of the class itself first.
        galleries: cue -> images with the highest and lowest scores.
    """

    label: str
    images: int
    rows: pd.DataFrame
    total: int
    maps: Sequence[MeanMap] = ()
    galleries: Mapping[str, Ends] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that is shown.

    Attributes:
        head: counts, caveats, and the meaning of the claims.
        identity: what produced the numbers: name -> text.
        limits: limits of content and size.
        grid: (h, w) of all maps.
        table: the ranking without decoys, strongest first.
        titles: query -> name for people.
        pairs, classes: pages.
        pictures: image_id -> picture.
        grids: (query, image_id) -> map.
        baseline: a baseline query whose maps are stored, if there is one.
        exact: flagged rows of `Audit.exact`.
        suspicious: rows of the ranking that are worth a look and that nothing is claimed of.
        discovered: words that no query names, of the last `legrad discover`.
        command: words of the command that audits the same results, to record a verdict.
    """

    head: Overview
    identity: Mapping[str, str]
    limits: Limits
    grid: tuple[int, int]
    table: pd.DataFrame
    titles: Mapping[str, str]
    pairs: Sequence[PairPage]
    classes: Sequence[ClassPage]
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    grids: Mapping[tuple[str, str], Grid] = field(default_factory=dict)
    baseline: str | None = None
    exact: Sequence[Mapping[str, Any]] = ()
    suspicious: Sequence[Mapping[str, Any]] = ()
    discovered: Sequence[Mapping[str, Any]] = ()
    command: Sequence[str] = ("legrad", "audit", "OUT")
