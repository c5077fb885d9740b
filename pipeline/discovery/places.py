"""Places where the heat of a class departs from that of the other classes, such as a corner.

An object may be anywhere in an image; a watermark or a timestamp is always in the same place. So
the stored maps of each class on its own images are scaled to a mean of 1, and the mean map of a
class is compared with the usual one, the median over the classes, cell by cell. Objects differ in
shape, so each cell departs a little in every class. How much is usual there, in all classes and
neighbouring cells, is the null distribution; the error of the mean is added to it. A place is found
on one half of the images, and the same figure of its cells on the other half says whether it is
there, too.

What has heat in that place in some images of the class becomes a direction, which is tested on the
other half like that of a thing without a word (`pipeline.discovery.things`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.audit.evidence import CUE_REGION
from pipeline.audit.inference import Array
from pipeline.audit.names import class_maps
from pipeline.audit.scores import Population
from pipeline.audit.suspicion_scan import EmbeddingSums
from pipeline.discovery.place_maps import SampledMaps
from pipeline.discovery.scan import ECHO, Likenesses
from pipeline.discovery.things import Thing, explained, whitening
from pipeline.results.results import Results

TOP = 2
"""Places of each class at most."""
LEAST = 4.0
"""Departure of a cell from which it can be a place."""
FEWEST = 10
"""Images with heat in the place, and without it, that a direction needs."""
_SHOWN = 50  # clearest images
_NEAREST = 3  # words of a candidate without a word
_NEIGHBOURS = 3  # side of the square of cells whose departures are looked at together
_ROWS = ("top", "middle", "bottom")
_SIDES = ("left", "centre", "right")


@dataclass(frozen=True)
class Place:
    """A place of a class.

    Attributes:
        code: code of the class.
        name: such as ``place 3 (bottom right)``.
        region: (h, w) bool, its cells.
        effect: departure of the class's heat in it, in usual ones, on the half where it was found.
        effect_again: the same on the other half.
        direction: (E,) unit direction from images of the class without heat in it to those with it.
        clearest: ids of the images of the class with the most heat in it.
    """

    code: int
    name: str
    region: NDArray[np.bool_]
    effect: float
    effect_again: float
    direction: Array
    clearest: tuple[str, ...]


@dataclass(frozen=True)
class Departures:
    """How the mean maps of K classes depart from the usual map, on one half.

    Attributes:
        classes: (K,) their codes.
        usual_map: (h, w) median over the classes.
        usual: (h, w) departure that is usual at each cell.
        effect: (K, h, w) departure in units of the usual one and the error of the mean.
    """

    classes: NDArray[np.int64]
    usual_map: Array
    usual: Array
    effect: Array

    @classmethod
    def of(cls, heat: NDArray[np.float32], codes: NDArray[np.int64]) -> "Departures":
        """Compare the classes that have `FEWEST` maps or more."""
        counts = np.bincount(codes)
        classes = np.flatnonzero(counts >= 2 * FEWEST)
        parts = [heat[codes == code].astype(np.float64) for code in classes]
        means = np.array([part.mean(axis=0) for part in parts]).reshape(-1, *heat.shape[1:])
        errors = [part.var(axis=0, ddof=1) / len(part) for part in parts]
        usual_map = np.median(means, axis=0) if parts else np.zeros(heat.shape[1:])
        departure = means - usual_map
        usual = _usual(np.abs(departure)) if parts else usual_map
        scale = np.sqrt(np.array(errors).reshape(means.shape) + usual**2)
        effect = departure / np.maximum(scale, 1e-12)
        return cls(classes, usual_map, usual, effect)

    def of_region(self, heat: NDArray[np.float32], region: NDArray[np.bool_]) -> float:
        """The same figure for the mean over a region, in maps (n, h, w) of one class."""
        inside = heat[:, region].mean(axis=1, dtype=np.float64)
        if len(inside) < 2:
            return float("nan")
        gap = inside.mean() - self.usual_map[region].mean()
        error = inside.var(ddof=1) / len(inside)
        return float(gap / np.sqrt(error + self.usual[region].mean() ** 2 + 1e-24))


def _usual(sizes: Array) -> Array:
    """(h, w) scaled median of departures (K, h, w) over the classes and neighbouring cells."""
    half = _NEIGHBOURS // 2
    padded = np.pad(sizes, ((0, 0), (half, half), (half, half)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (_NEIGHBOURS, _NEIGHBOURS), axis=(1, 2)
    )
    result: Array = 1.4826 * np.median(windows, axis=(0, 3, 4))
    return result


def read_places(
    results: Results, population: Population, sums: EmbeddingSums, ridge: float, cues: Array
) -> list[Place]:
    """The places of all classes of a run; none if it stored no maps of its classes.

    Args:
        sums: sums of the embeddings of the half on which places are found.
        ridge: what is added to the covariance, as a share of its mean eigenvalue.
        cues: (C, E) directions of the run's cues. A place that they explain together is left out.
    """
    stored = class_maps(results, population)
    maps = SampledMaps.read(results, population, stored, results.grid) if stored else None
    return [] if maps is None else find_places(maps, whitening(sums, ridge), cues)


def find_places(maps: SampledMaps, white: Array, cues: Array) -> list[Place]:
    """The places of each class, those that depart the most first; see `read_places`.

    Args:
        white: (E, E) whitening matrix of the embeddings within classes.
    """
    first, second = (
        Departures.of(maps.heat[half], maps.codes[half]) for half in (~maps.again, maps.again)
    )
    places: list[Place] = []
    for code, effect in zip(first.classes, first.effect, strict=True):
        mine = maps.codes == code
        found, tested = mine & ~maps.again, mine & maps.again
        for region in _regions(effect):
            inside = maps.heat[:, region].mean(axis=1)
            direction = _direction(maps.vectors[found], inside[found], white)
            if direction is None or explained(_centred(maps.vectors[mine]), direction, cues) > ECHO:
                continue
            rows = np.flatnonzero(mine)
            hottest = rows[np.argsort(-inside[rows], kind="stable")]
            places.append(
                Place(
                    int(code),
                    f"place {len(places) + 1} ({_position(region)})",
                    region,
                    first.of_region(maps.heat[found], region),
                    second.of_region(maps.heat[tested], region),
                    direction,
                    tuple(maps.ids[hottest[:_SHOWN]]),
                )
            )
    return places


def _regions(effect: Array) -> list[NDArray[np.bool_]]:
    """Connected cells that depart, the hottest tenth of a map at most, around the `TOP` peaks."""
    regions: list[NDArray[np.bool_]] = []
    left = effect.copy()
    most = max(1, round(CUE_REGION * effect.size))
    while len(regions) < TOP and left.max() >= LEAST:
        peak = np.unravel_index(int(left.argmax()), left.shape)
        parts, _ = ndimage.label(left >= left[peak] / 2)
        connected = np.where(parts == parts[peak], left, -np.inf)
        bar = np.sort(connected, axis=None)[-most]
        regions.append((connected >= bar) & np.isfinite(connected))
        left[parts == parts[peak]] = -np.inf
    return regions


def _direction(
    vectors: NDArray[np.float32], inside: NDArray[np.float32], white: Array
) -> Array | None:
    """(E,) unit direction from images with little heat in a place to those with much of it."""
    hot = inside > _cut(inside)
    if min(hot.sum(), (~hot).sum()) < FEWEST:
        return None
    gap = vectors[hot].mean(axis=0, dtype=np.float64) - vectors[~hot].mean(axis=0, dtype=np.float64)
    direction: Array = white @ (white.T @ gap)
    return direction / max(float(np.linalg.norm(direction)), 1e-12)


def _centred(vectors: NDArray[np.float32]) -> Array:
    every = vectors.astype(np.float64)
    centred: Array = every - every.mean(axis=0)
    return centred


def _cut(values: NDArray[np.float32]) -> float:
    """Value that splits values into the two parts that vary the least (Otsu 1979)."""
    ranked = np.sort(values).astype(np.float64)
    count = np.arange(1, len(ranked))
    below = ranked.cumsum()[:-1]
    gap = (ranked.sum() - below) / (len(ranked) - count) - below / count
    best = int((count * (len(ranked) - count) * gap**2).argmax()) if len(count) else 0
    return float(ranked[best])


def _position(region: NDArray[np.bool_]) -> str:
    """Where the middle of a region lies, in thirds of the image."""
    thirds = [
        min(int(3 * (cells.mean() + 0.5) / size), 2)
        for cells, size in zip(np.nonzero(region), region.shape, strict=True)
    ]
    row, side = _ROWS[thirds[0]], _SIDES[thirds[1]]
    return "centre" if thirds == [1, 1] else f"{row} {side}"


def unnamed_frame(
    things: Sequence[Thing | Place],
    classes: Sequence[str],
    likenesses: Likenesses,
    phrases: Sequence[str],
    covariance: Array,
) -> pd.DataFrame:
    """One row per thing or place, with its nearest words and the correlations of their scores.

    Args:
        classes: labels by code.
        likenesses: similarities of the words.
        phrases: the words.
        covariance: (E, E) covariance within classes.
    """
    rows = []
    for thing in things:
        scaled = Likenesses.of(thing.direction[None], covariance).scaled[0]
        alike = likenesses.through @ scaled
        nearest = np.argsort(-alike, kind="stable")[:_NEAREST]
        words = ", ".join(f"{phrases[word]} ({alike[word]:.2f})" for word in nearest)
        row: dict[str, str | float] = {
            "class": classes[thing.code],
            "word": thing.name,
            "also": words,
        }
        if isinstance(thing, Thing):
            rows.append(row | {"kind": "thing", "found_by": "clusters"})
        else:
            effects = {"effect": thing.effect, "effect_again": thing.effect_again}
            rows.append(row | effects | {"kind": "place", "found_by": "maps"})
    names = ["class", "word", "kind", "also", "found_by", "effect", "effect_again"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(rank=frame.groupby(["class", "kind"]).cumcount() + 1)
