"""FiftyOne: a folder that ``fiftyone.Dataset.from_dir`` reads, with pictures, heat and tags.

Written here and not by FiftyOne, which needs a database. All paths in it are relative to the
folder, so that it can be moved.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from legrad.heatmaps.codec import encode_maps
from legrad.heatmaps.transforms import upsample
from legrad.preprocess import Preprocess
from pipeline.audit.class_members import label_pairs
from pipeline.audit.names import has_maps
from pipeline.auditor import Audit

_FIELDS = "fiftyone.core.fields"
_TEXT, _NUMBER = f"{_FIELDS}.StringField", f"{_FIELDS}.FloatField"
_DOCUMENT = _FIELDS + ".EmbeddedDocumentField(fiftyone.core.labels.{})"


def write_fiftyone(audit: Audit, flagged: pd.DataFrame, folder: Path) -> None:
    """Write ``metadata.json``, ``samples.json``, pictures and heat of some (image, cue).

    Args:
        audit: audit of the run.
        flagged: the images, see `tables.flagged_images`; an empty cue stands for none.
        folder: local folder; ``data/`` gets the pictures, ``fields/heat_<cue>/`` their heat.
    """
    sets = _label_sets(audit, flagged)
    fields = {
        "filepath": _TEXT,
        "tags": f"{_FIELDS}.ListField({_TEXT})",
        "image_id": _TEXT,
        "ground_truth": _DOCUMENT.format("Classifications" if sets else "Classification"),
    }
    heat: dict[str, dict[str, NDArray[np.float32]]] = {}
    named = flagged[flagged["cue"] != ""]
    for cue, rows in named.groupby("cue"):
        fields[f"score_{cue}"] = _NUMBER
        if has_maps(audit.results, str(cue)):
            fields[f"heat_{cue}"] = _DOCUMENT.format("Heatmap")
            ids, maps = audit.results.maps(str(cue), rows["image_id"].tolist())
            heat[str(cue)] = dict(zip(ids, maps, strict=True))
    for subfolder in ("data", *(f"fields/heat_{cue}" for cue in heat)):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    samples = []
    for number, (name, rows) in enumerate(flagged.groupby("image_id", sort=True), 1):
        image_id = str(name)
        original = audit.results.image(image_id)
        path = f"data/{number:06d}.png"
        original.save(folder / path)
        sample: dict[str, Any] = {
            "filepath": path,
            "tags": sorted({f"{r['cue']} in {r['class']}" for _, r in rows.iterrows() if r["cue"]}),
            "image_id": image_id,
            "ground_truth": _classes(sets[image_id]) if sets else _class(rows["class"].iloc[0]),
        }
        for cue, score in rows.loc[rows["cue"] != "", ["cue", "score"]].itertuples(index=False):
            sample[f"score_{cue}"] = float(score)
            if cue in heat and np.isfinite(heat[cue][image_id]).all():
                path = f"fields/heat_{cue}/{number:06d}.png"
                grey = _grey(heat[cue][image_id], original.size, audit.results.preprocess)
                (folder / path).write_bytes(grey)
                sample[f"heat_{cue}"] = {"_cls": "Heatmap", "map_path": path, "range": [0, 255]}
        samples.append(sample)
    about = {
        "name": f"legrad {audit.verdicts.dataset}",
        "media_type": "image",
        "sample_fields": fields,
        "info": {},
    }
    for file, content in (("metadata", about), ("samples", about | {"samples": samples})):
        text = json.dumps(content, indent=1)
        (folder / f"{file}.json").write_text(text, encoding="utf-8")


def _label_sets(audit: Audit, flagged: pd.DataFrame) -> dict[str, list[str]]:
    """The labels of some images by image_id; empty where each image has one label."""
    if not audit.findings.population.has_sets:
        return {}
    image_ids = flagged["image_id"].unique().tolist()
    table = audit.results.rows.select(image_ids, ["label", "labels"])
    sets: dict[str, list[str]] = {image_id: [] for image_id in image_ids}
    for row, label in zip(*label_pairs(table), strict=True):
        sets[image_ids[row]].append(label.as_py())
    return sets


def _classes(labels: list[str]) -> dict[str, Any]:
    return {"_cls": "Classifications", "classifications": [_class(label) for label in labels]}


def _class(label: str) -> dict[str, Any]:
    return {"_cls": "Classification", "label": label}


def _grey(heat: NDArray[np.float32], size: tuple[int, int], preprocess: Preprocess) -> bytes:
    """A map as a grey PNG of the picture's size (width, height); 255 is the map's maximum."""
    cells, _ = encode_maps(heat[None])
    large = upsample(cells[0].astype(np.float32), (size[1], size[0]), preprocess.box(*size))
    buffer = io.BytesIO()
    Image.fromarray(np.rint(large).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
