"""What a report shows, before it is written: plain values, no storage, no HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.overview import Overview


@dataclass(frozen=True)
class Limits:
    """What a report may cost.

    Attributes:
        images: whether single images are shown at all. Without them a report holds aggregates only:
            no picture, no map of one image, no image's name.
        pages: pairs that get a page of their own; flagged ones always do.
        each: pictures of a pair with the cue, and as many without it.
        megabytes: of the folder, about; pictures take what the pages leave, and the strongest
            findings get theirs first.
        side: of a picture, the longer one, in pixels.
    """

    images: bool = True
    pages: int = 200
    each: int = 12
    megabytes: float = 20.0
    side: int = 192


class Chosen(NamedTuple):
    """An image that is shown for a cue.

    Attributes:
        score: of the cue; higher is more of it.
        presence: probability that the cue is there; NaN where it is not measured.
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
        data: WebP; None where the image could not be read.
        size: (width, height) of the original in pixels.
        box: left, top, width, height of the map's grid on the picture, in shares of its sides.
        why: in words, where there is no copy.
    """

    data: bytes | None
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    why: str = ""


@dataclass(frozen=True)
class EditPicture:
    """One edit, ready for a page.

    Attributes:
        deleted: the cue was deleted; else it was pasted in.
        before, after, control: data URIs of small WebP pictures.
        change, control_change: of the probe's logit, in shares of the distance of the classes.
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
        row: of the ranking.
        densities: score, in_class, elsewhere.
        threshold: score from which the cue counts as present; NaN if not measured.
        beside: cues that come with this one, see `Cooccurrence.beside`.
        elsewhere: the same cue in other classes, rows of the ranking, this one among them.
        ends: images with and without the cue.
        edits: images whose cue was deleted or pasted in, and what that changed.
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
        mean: (h, w).
        difference: (h, w), signed.
        differs: (h, w) cells where the difference is more than chance.
    """

    query: str
    mean: NDArray[np.float64]
    difference: NDArray[np.float64]
    differs: NDArray[np.bool_]


@dataclass(frozen=True)
class ClassPage:
    """A class.

    Attributes:
        rows: its cues, strongest first, rows of the ranking.
        total: how many cues it has in the ranking.
        maps: mean maps, the class's own first.
        galleries: images by cue score, by cue.
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
        head: counts, caveats, what the claims mean.
        identity: of the run: name -> value, in words.
        limits: what was left out on purpose.
        grid: (h, w) of all maps.
        table: the ranking without decoys, strongest first.
        titles: query -> text.
        pairs, classes: pages.
        pictures: by image_id.
        grids: by (query, image_id).
        own: class -> name of the query of its own maps.
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
