"""COCO annotations: the thresholded heat of each flagged cue as a box and run lengths."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.audit.names import has_maps
from pipeline.auditor import Audit
from pipeline.export.heat import bounding_box, hot_region, run_lengths

THRESHOLD = 0.5
"""Share of a map's maximum from which a pixel belongs to the cue's region."""


def coco(audit: Audit, found: pd.DataFrame, threshold: float = THRESHOLD) -> dict[str, Any]:
    """A COCO data set with the cues' regions in images of `tables.flagged_images`.

    Regions are heat, not outlines of objects. ``score`` (the cue's), ``label`` and ``heat_peak``
    are extra keys; ``file_name`` is the image_id.
    """
    sizes = _sizes(audit, found["image_id"].unique().tolist())
    numbers = {name: number for number, name in enumerate(sizes, 1)}
    cues = {cue: number for number, cue in enumerate(sorted(found["cue"].unique()), 1)}
    annotations: list[dict[str, Any]] = []
    for cue, rows in found.groupby("cue", sort=True):
        if not has_maps(audit.results, str(cue)):
            continue
        ids = rows["image_id"].tolist()
        _, maps = audit.results.maps(str(cue), ids)
        for row, heat in zip(rows.to_dict(orient="records"), maps, strict=True):
            name = row["image_id"]
            if not np.isfinite(heat).all():
                continue
            mask = hot_region(heat, sizes[name], audit.results.preprocess, threshold)
            if mask.any():
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": numbers[name],
                        "category_id": cues[str(cue)],
                        "bbox": list(bounding_box(mask)),
                        "area": int(mask.sum()),
                        "segmentation": {"counts": run_lengths(mask), "size": list(mask.shape)},
                        "iscrowd": 0,
                        "score": float(row["score"]),
                        "label": row["class"],
                        "heat_peak": float(heat.max()),
                    }
                )
    images = [
        {"id": numbers[name], "file_name": name, "width": width, "height": height}
        for name, (width, height) in sizes.items()
    ]
    categories = [{"id": n, "name": cue, "supercategory": "cue"} for cue, n in cues.items()]
    about = {"description": f"heat of at least {threshold:g} of each map's maximum"}
    return {
        "info": about,
        "images": images,
        "categories": categories,
        "annotations": annotations,
    }


def _sizes(audit: Audit, names: list[str]) -> dict[str, tuple[int, int]]:
    """image_id -> (width, height), in order of the ids."""
    table = audit.results.dataset.to_table(
        columns=["image_id", "width", "height"],
        filter=ds.field("image_id").isin(pa.array(names, pa.string())),
    )
    rows = sorted(table.to_pylist(), key=lambda row: str(row["image_id"]))
    return {row["image_id"]: (row["width"], row["height"]) for row in rows}
