"""FiftyOne: a data set as JSON, with the pictures, the cues' heat and tags beside it.

Written by the format's documentation (``fiftyone.Dataset.from_json``); FiftyOne itself needs a
database and is no dependency, so the tests hold the JSON and its files, not FiftyOne's reader.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from legrad.heatmaps.codec import encode_maps
from legrad.heatmaps.transforms import upsample
from pipeline.audit.names import has_maps
from pipeline.auditor import Audit


def write_fiftyone(audit: Audit, found: pd.DataFrame, folder: Path) -> Path:
    """Write pictures, heat and ``samples.json`` of some (image, cue) into a folder.

    Returns:
        The JSON; paths in it are absolute.
    """
    for name in ("data", "heat"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    samples = []
    for number, (image_id, rows) in enumerate(found.groupby("image_id", sort=True), 1):
        original = audit.results.image(str(image_id))
        place = folder / "data" / f"{number:06d}.png"
        original.save(place)
        sample: dict[str, Any] = {
            "filepath": str(place.resolve()),
            "tags": sorted({f"{row['cue']} in {row['class']}" for _, row in rows.iterrows()}),
            "image_id": str(image_id),
            "ground_truth": {"_cls": "Classification", "label": rows["class"].iloc[0]},
        }
        for cue, score in zip(rows["cue"], rows["score"], strict=True):
            sample[f"score_{cue}"] = float(score)
            heat = _heat(audit, str(image_id), str(cue), original.size)
            if heat is not None:
                file = folder / "heat" / f"{number:06d}-{cue}.png"
                file.write_bytes(heat)
                sample[f"heat_{cue}"] = {
                    "_cls": "Heatmap",
                    "map_path": str(file.resolve()),
                    "range": [0, 255],
                }
        samples.append(sample)
    out = folder / "samples.json"
    about = {"name": f"legrad {audit.verdicts.dataset}", "media_type": "image", "info": {}}
    out.write_text(json.dumps(about | {"samples": samples}, indent=1), encoding="utf-8")
    return out


def _heat(audit: Audit, image_id: str, cue: str, size: tuple[int, int]) -> bytes | None:
    """A grey PNG of the picture's size: 255 is the map's maximum; None without a map."""
    if not has_maps(audit.results, cue):
        return None
    _, maps = audit.results.maps(cue, [image_id])
    if not np.isfinite(maps).all():
        return None
    cells, _ = encode_maps(maps)
    box = audit.results.preprocess.box(*size)
    grey = np.rint(upsample(cells[0].astype(np.float32), (size[1], size[0]), box))
    buffer = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
