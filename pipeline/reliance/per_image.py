"""What each edit changed, image by image, along the probe that did not see the image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.inference import Array
from pipeline.reliance.claims import Claims, Pair
from pipeline.reliance.edited import Vectors
from pipeline.reliance.probe import Probe
from pipeline.reliance.probe_statistics import FOLDS, groups
from pipeline.reliance.task import Kind

COLUMNS = (
    "image_id",
    "kind",
    "counts",
    "cue_before",
    "cue_after",
    "probe_change",
    "control_change",
)


class Contrast:
    """The probe's logit of a class against another, in shares of the distance of their means.

    Args:
        probes: one a fold.
        one, other: places of the classes.
    """

    def __init__(self, probes: Sequence[Probe], one: int, other: int) -> None:
        own, rival = np.array([one]), np.array([other])
        lines = np.concatenate([probe.direction(own, rival) for probe in probes])
        gaps = [
            float(line @ (probe.means[one] - probe.means[other]))
            for line, probe in zip(lines, probes, strict=True)
        ]
        self.lines = lines / np.where(np.array(gaps) > 0, gaps, np.nan)[:, None]

    def change(self, image_ids: Sequence[str], moved: Vectors) -> Array:
        """(n,) of images whose embeddings moved by (n, E)."""
        fold = groups(list(image_ids)) % FOLDS if len(image_ids) else np.zeros(0, np.int64)
        result: Array = np.einsum("ne,ne->n", self.lines[fold], moved)
        return result


def per_image(claims: Claims, pair: Pair, contrast: Contrast) -> pd.DataFrame:
    """A row an edited image.

    Returns:
        ``image_id``; ``kind`` (`Kind.DELETED`, `Kind.INSERTED`); ``counts``: whether the cue
        verifiably went or came; ``cue_before``, ``cue_after``: its score (cosine), mean over the
        fills; ``probe_change``, ``control_change``: of the logit of class against rival, in shares
        of their distance, mean over the fills.
    """
    text = claims.directions.cues[pair.cue]
    gone, put = pair.edited.deleted, pair.edited.inserted
    parts = [
        _rows(
            gone.ids,
            Kind.DELETED,
            claims.gone(pair, gone),
            (gone.before @ text, (gone.without @ text).mean(axis=0)),
            [
                contrast.change(gone.ids, after.mean(axis=0) - gone.before)
                for after in (gone.without, gone.control)
            ],
        ),
        _rows(
            put.ids,
            Kind.INSERTED,
            claims.came(pair),
            (put.before @ text, put.inserted @ text),
            [contrast.change(put.ids, after - put.before) for after in (put.inserted, put.control)],
        ),
    ]
    return pd.concat(parts, ignore_index=True)


def _rows(
    ids: Sequence[str],
    kind: Kind,
    counts: NDArray[np.bool_],
    scores: tuple[Vectors, Vectors],
    changes: list[Array],
) -> pd.DataFrame:
    values = [list(ids), [str(kind)] * len(ids), counts, *scores, *changes]
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
