"""Image ids that stand more than once: counts of rows cannot tell, a missing row hides a double."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import commit_of, commits, committed_parts, ids_of, side_by_side
from pipeline.storage.location import Location

MOST_NAMED = 1_000


def repeated_ids(parts: Sequence[Location]) -> dict[str, list[str]]:
    """Ids that stand more than once in some parts; holds eight bytes a row.

    Returns:
        The names of the parts that hold each, by id, sorted; at most `MOST_NAMED` ids.
    """
    hashes = side_by_side(lambda part: _hashed(_ids(part)), parts)
    values, counts = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *hashes]), return_counts=True
    )
    twice = values[counts > 1]
    if not twice.size:
        return {}
    holders: dict[str, list[str]] = defaultdict(list)
    for part, own in zip(parts, hashes, strict=True):
        suspects = np.isin(own, twice)
        if suspects.any():
            for image_id in _ids(part)[suspects]:
                holders[image_id].append(part.path.rsplit("/", 1)[-1])
    found = sorted(image_id for image_id, names in holders.items() if len(names) > 1)
    return {image_id: sorted(holders[image_id]) for image_id in found[:MOST_NAMED]}


def parts_by_wave(folder: RunFolder) -> Iterator[list[Location]]:
    """The committed parts, wave by wave: a shard belongs to one, and so does every id."""
    places = commits(folder)
    waves: dict[str, list[Location]] = defaultdict(list)
    for part in committed_parts(folder):
        place = places[commit_of(part.path.rsplit("/", 1)[-1])]
        waves[place.rpartition("/")[0]].append(part)
    yield from waves.values()


def _ids(part: Location) -> NDArray[np.object_]:
    ids: NDArray[np.object_] = ids_of(part).to_numpy(zero_copy_only=False)
    return ids


def _hashed(ids: NDArray[np.object_]) -> NDArray[np.uint64]:
    hashed: NDArray[np.uint64] = pd.util.hash_array(ids, categorize=False)
    return hashed
