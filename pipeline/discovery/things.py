"""Things that some images of a class have and that no word names: clusters of its embeddings.

Embeddings are whitened by the covariance within classes, so that what varies in every class
(places, sizes) varies by 1 in each direction, and a thing that comes with one class stands out in
it. The directions that separate the classes are projected out, because they would mix the object
into the result. In each class the images are clustered along the few directions in which they vary
most, and the difference between a cluster and the rest of the class is a direction. A direction is
no claim: it is tested on the other half like a word.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.audit.class_maps import MapSample
from pipeline.audit.inference import Array
from pipeline.audit.scores import Population, Readable, batches, embeddings
from pipeline.audit.suspicion_scan import EmbeddingSums
from pipeline.discovery.scan import ECHO, Likenesses
from pipeline.schema import EMBEDDING

IMAGES, TOTAL = 400, 20_000
"""Images of each class that are clustered, and of all classes."""
TOP, MOST_THINGS = 4, 200
"""Directions of each class that are tested, and of all classes."""
FEWEST = 10
"""Images that a cluster and the rest of its class need."""
_CLUSTERS, _COMPONENTS, _ROUNDS, _STARTS = (2, 3, 4), 5, 3, 4


@dataclass(frozen=True)
class Thing:
    """A direction that splits a class.

    Attributes:
        code: code of the class.
        name: such as ``unnamed 3``.
        direction: (E,) unit direction from the rest of the class to the cluster.
        variance: variance of the class's images along the whitened direction; 1 is usual.
    """

    code: int
    name: str
    direction: Array
    variance: float


def find_things(
    half: Readable,
    population: Population,
    sums: EmbeddingSums,
    ridge: float,
    cues: Array,
    named: Callable[[int], Array],
    seed: int,
) -> list[Thing]:
    """Directions that split classes, those of the largest variance, ordered by class.

    Args:
        half: the half on which things are found.
        population: the classes of this half and their sizes in it.
        sums: sums of the embeddings of this half.
        ridge: what is added to the covariance, as a share of its mean eigenvalue.
        cues: (C, E) directions of the run's cues. A thing that they explain together is left out.
        named: code of a class -> (D, E) words that were found for it and need not be found again.
        seed: seed of the clustering.
    """
    white = whitening(sums, ridge)
    things: list[Thing] = []
    for code, vectors in _sampled(half, population):
        known = Likenesses.of(named(code), sums.covariance).through
        kept: list[Array] = []
        centred = vectors - vectors.mean(axis=0)
        for variance, line in _splits(centred @ white, seed):
            direction = white @ line
            direction /= np.linalg.norm(direction)
            of_line = Likenesses.of(np.stack([direction, *kept]), sums.covariance)
            earlier = of_line.between(0, range(1, len(kept) + 1))
            if (earlier > ECHO).any() or (np.abs(known @ of_line.scaled[0]) > ECHO).any():
                continue
            if explained(centred, direction, cues) > ECHO:
                continue
            kept.append(direction)
            things.append(Thing(code, "", direction, variance))
            if len(kept) == TOP:
                break
    order = sorted(range(len(things)), key=lambda n: -things[n].variance)[:MOST_THINGS]
    return [
        Thing(things[n].code, f"unnamed {number}", things[n].direction, things[n].variance)
        for number, n in enumerate(sorted(order), 1)
    ]


def whitening(sums: EmbeddingSums, ridge: float) -> Array:
    """(E, E) whitening matrix that projects out the directions separating the classes."""
    covariance, width = sums.covariance, len(sums.covariance)
    strength = max(ridge * np.trace(covariance) / width, 1e-12)
    values, vectors = np.linalg.eigh(covariance + strength * np.eye(width))
    root = (vectors / np.sqrt(values)) @ vectors.T
    means = sums.means[sums.images > 0] @ root
    _, _, between = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    between = between[: min(len(means) - 1, width // 4)]
    result: Array = root - (root @ between.T) @ between
    return result


def explained(images: Array, direction: Array, cues: Array) -> float:
    """Share of the variance of a direction's scores that the cues' scores explain, adjusted.

    Args:
        images: (n, E) of one class, about their mean.
    """
    count, free = len(images), len(images) - len(cues) - 1
    if not len(cues) or free < count / 2:
        return 0.0
    along, scores = images @ direction, images @ cues.T
    rest = along - scores @ np.linalg.lstsq(scores, along, rcond=None)[0]
    whole = max(float(along @ along), 1e-24) / (count - 1)
    return 1 - float(rest @ rest) / free / whole


def _sampled(half: Readable, population: Population) -> Iterator[tuple[int, Array]]:
    """Code of each audited class, and embeddings of a random sample of its images."""
    sample = MapSample.of(population, IMAGES, TOTAL)
    codes: list[NDArray[np.int64]] = []
    for batch in batches(half, population, [], ["image_id", EMBEDDING]):
        codes.append(sample.take((), batch.table, batch.codes))
    if not sample.tables:
        return
    vectors, every = embeddings(pa.concat_tables(sample.tables[()])), np.concatenate(codes)
    for code in range(population.audited):
        mine = vectors[every == code].astype(np.float64)
        if len(mine) >= 2 * FEWEST:
            yield code, mine


def _splits(images: Array, seed: int) -> list[tuple[float, Array]]:
    """Variance along each direction (E,) from a cluster to the rest, the largest first.

    Args:
        images: (n, E) whitened, about their mean.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    count = min(_COMPONENTS, *images.shape)
    components = PCA(count, random_state=seed).fit(images).components_
    reduced = images @ components.T
    splits = []
    for clusters in _CLUSTERS:
        labels = KMeans(clusters, n_init=_STARTS, random_state=seed).fit_predict(reduced)
        splits += [_refined(reduced, labels == cluster) for cluster in range(clusters)]
    lines = [(split[0], split[1] @ components) for split in splits if split is not None]
    return sorted(lines, key=lambda line: -line[0])


def _refined(images: Array, inside: NDArray[np.bool_]) -> tuple[float, Array] | None:
    """Move the border of a cluster to the middle between it and the rest, several times."""
    line = np.zeros(images.shape[1])
    for _ in range(_ROUNDS):
        if min(inside.sum(), (~inside).sum()) < FEWEST:
            return None
        line = images[inside].mean(axis=0) - images[~inside].mean(axis=0)
        along = images @ line
        inside = along > (along[inside].mean() + along[~inside].mean()) / 2
    line /= max(float(np.linalg.norm(line)), 1e-12)
    return float((images @ line).var()), line
