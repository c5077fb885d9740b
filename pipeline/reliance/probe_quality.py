"""How well the probe tells each class: accuracy, and the AUC against its nearest rival."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.inference import Array, auc_interval, share_interval
from pipeline.audit.scores import Population, Readable, batches
from pipeline.reliance.probe import Probe
from pipeline.reliance.probe_statistics import FOLDS, embeddings, groups
from pipeline.schema import EMBEDDING

COLUMNS = (
    "class",
    "images",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "chance",
    "rival",
    "auc",
    "auc_low",
    "auc_high",
)


@dataclass
class _Contrast:
    """Held-out values of a direction on a class and on its rival."""

    own: list[NDArray[np.float32]]
    other: list[NDArray[np.float32]]


def judge(
    results: Readable, known: Population, probes: list[Probe], rivals: NDArray[np.int64]
) -> pd.DataFrame:
    """Judge every image by the probe that did not see it; a second pass over the embeddings.

    Args:
        probes: one a fold, see `cross_fitted`.
        rivals: (K,) see `Probe.rivals`.

    Returns:
        A row a class: ``accuracy`` over all classes at equal priors with Wilson's interval,
        ``chance`` (one over the number of classes), ``rival``, and ``auc`` of the direction between
        class and rival with the interval of Hanley and McNeil (1982); NaN without a rival.
    """
    classes = len(known.classes)
    machines = [probe.classifier() for probe in probes]
    pairs = np.flatnonzero(rivals >= 0)
    lines = [probe.direction(pairs, rivals[pairs]) for probe in probes]
    right, images = np.zeros(classes), np.zeros(classes)
    found = {int(code): _Contrast([], []) for code in pairs}
    for batch in batches(results, known, [], ["image_id", EMBEDDING]):
        fold = groups(batch.table["image_id"].to_pylist()) % FOLDS
        vectors = embeddings(batch.table)
        for number in range(FOLDS):
            rows = np.flatnonzero(fold == number)
            codes, mine = batch.codes[rows], vectors[rows]
            weights, offsets = machines[number]
            said = (mine @ weights.T + offsets).argmax(axis=1) if len(rows) else codes
            right += np.bincount(codes[said == codes], minlength=classes)
            images += np.bincount(codes, minlength=classes)
            _contrast(found, mine, codes, lines[number], pairs, rivals)
    rows_ = [
        _row(known, code, right, images, rivals, found.get(code)) for code in range(known.audited)
    ]
    return pd.DataFrame(rows_, columns=list(COLUMNS))


def _contrast(
    found: dict[int, _Contrast],
    vectors: NDArray[np.float32],
    codes: NDArray[np.int64],
    lines: Array,
    pairs: NDArray[np.int64],
    rivals: NDArray[np.int64],
) -> None:
    for place, code in enumerate(map(int, pairs)):
        line = lines[place].astype(np.float32)
        found[code].own.append(vectors[codes == code] @ line)
        found[code].other.append(vectors[codes == rivals[code]] @ line)


def _row(
    known: Population,
    code: int,
    right: Array,
    images: Array,
    rivals: NDArray[np.int64],
    contrast: _Contrast | None,
) -> list[object]:
    count = max(images[code], 1)
    share = right[code] / count
    low, high = (float(bound) for bound in share_interval(right[code], count))
    chance = 1 / max((images > 0).sum(), 1)
    row = [known.classes[code], int(images[code]), share, low, high, chance]
    if contrast is None:
        return [*row, "", np.nan, np.nan, np.nan]
    auc = auc_interval(np.concatenate(contrast.own), np.concatenate(contrast.other))
    return [*row, known.classes[int(rivals[code])], *auc]
