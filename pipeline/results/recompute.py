"""Explain some images again and compare with what is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import torch
from numpy.typing import NDArray

from legrad.method.explainer import LeGrad
from legrad.queries.query import encode_queries
from pipeline.errors import UsageError
from pipeline.machine import cores
from pipeline.results import Results
from pipeline.results.reproduce import model_config, pixels_again
from pipeline.schema import Status
from pipeline.stages.explain import ReplicaSettings

MOST_STEPS = {"fp32": 1.0, "fp16": 2.0, "bf16": 6.0}
"""Of a map's 255: two machines may round to neighbours, and at low precision beyond."""
MOST_SCORE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}
_BATCH = 16
_PLACE = ("shard", "key", "source_offset", "source_length", "row_group", "row", "sha256")


@dataclass(frozen=True)
class Recomputed:
    """How far stored results are from those computed again.

    Attributes:
        images: how many were explained again.
        map_steps: largest difference of maps, in steps of 1/255 of the stored map's maximum,
            beyond the half step of rounding.
        score: largest difference of scores.
        unreadable: image ids that could not be fetched or decoded again, and why.
        tolerance, most_steps: what ``score`` and ``map_steps`` may be, by the run's precision.
    """

    images: int
    map_steps: float
    score: float
    unreadable: Mapping[str, str]
    tolerance: float
    most_steps: float

    @property
    def agree(self) -> bool:
        """Whether everything is within rounding, and every image was found again."""
        near = self.map_steps <= self.most_steps and self.score <= self.tolerance
        return near and not self.unreadable


def recompute(results: Results, count: int, *, seed: int = 0, device: str = "cpu") -> Recomputed:
    """Fetch, decode and explain a random sample of the explained images again.

    Args:
        results: of a run; its images must still be where they were.
        count: of images.
        seed: decides which.
        device: for the model.

    Raises:
        UsageError: the model's weights are not those of the run, or there is nothing to compare.
    """
    identity = results.run["identity"]
    settings = ReplicaSettings(model_config(results.run), device, cores(), _BATCH)
    model = settings.load()
    if model.digest != identity["model.weights_sha256"]:
        raise UsageError(
            f"{results.folder.uri}: {settings.model.name} has other weights here than in the run"
        )
    legrad = LeGrad(model, settings.model.layers)
    features = encode_queries(model, results.queries)
    rows = _sample(results, count, seed)
    unreadable: dict[str, str] = {}
    steps, scores = [0.0], [0.0]
    done = 0
    for start in range(0, len(rows), _BATCH):
        some, pixels = [], []
        for row in rows[start : start + _BATCH]:
            found = pixels_again(
                results.origin, row, model.preprocess, identity["source.max_pixels"]
            )
            if isinstance(found, str):
                unreadable[row["image_id"]] = found
            else:
                some.append(row)
                pixels.append(found)
        if some:
            sizes = [(row["width"], row["height"]) for row in some]
            again = legrad.explain(torch.from_numpy(np.stack(pixels)), features, sizes=sizes)
            ids = [row["image_id"] for row in some]
            steps.append(_map_steps(results, ids, again.maps.float().cpu().numpy()))
            stored = results.scores().loc[ids].to_numpy()
            scores.append(float(np.abs(stored - again.scores.float().cpu().numpy()).max()))
            done += len(some)
    allowed = (table[settings.model.precision] for table in (MOST_SCORE, MOST_STEPS))
    return Recomputed(done, max(steps), max(scores), unreadable, *allowed)


def _sample(results: Results, count: int, seed: int) -> list[dict[str, Any]]:
    ok = ds.field("status") == str(Status.OK)
    ids = results.dataset.to_table(columns=["image_id"], filter=ok)["image_id"].to_pylist()
    if not ids:
        raise UsageError(f"{results.folder.uri}: no image was explained, nothing to compare")
    chosen = np.random.default_rng(seed).choice(sorted(ids), min(count, len(ids)), replace=False)
    columns = ["image_id", "width", "height", *_PLACE]
    wanted = ds.field("image_id").isin(chosen.tolist())
    rows: list[dict[str, Any]] = results.dataset.to_table(columns, filter=wanted).to_pylist()
    return rows


def _map_steps(results: Results, ids: Sequence[str], maps: NDArray[np.float32]) -> float:
    """Largest difference in steps of the stored maps; maps that were not stored count for none."""
    largest = 0.0
    for column, query in enumerate(results.queries):
        _, stored = results.maps(query.name, ids)
        there = ~np.isnan(stored).any(axis=(1, 2))
        old, new = stored[there], maps[there, column]
        peak = np.maximum(old.max(axis=(1, 2), initial=0.0), np.finfo(np.float32).tiny)
        difference = np.abs(old - new).max(axis=(1, 2), initial=0.0) / peak * 255 - 0.5
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest
