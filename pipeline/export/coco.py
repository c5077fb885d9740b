"""COCO annotations: the thresholded heat of each flagged cue as a box and run lengths.

pycocotools encodes run lengths, too, but is a compiled package that nothing else here needs.
"""

import io
import mimetypes
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from legrad.heatmaps.transforms import upsample
from legrad.image_files import open_image
from legrad.preprocess import Preprocess, orientation, to_rgb
from pipeline.audit.names import has_maps
from pipeline.auditor import Audit
from pipeline.machine import map_in_threads
from pipeline.results import Results
from pipeline.schema import FETCH_COLUMNS
from pipeline.storage.location import Location

THRESHOLD = 0.5
"""Share of a map's maximum from which a pixel belongs to the cue's region."""
Mask = NDArray[np.bool_]


def coco(
    audit: Audit,
    flagged: pd.DataFrame,
    threshold: float = THRESHOLD,
    pictures: Location | None = None,
) -> dict[str, Any]:
    """A COCO data set with the cues' regions in images of `tables.flagged_images`.

    Regions are heat, not outlines of objects. ``score`` (the cue's), ``image_label`` and
    ``heat_peak`` of an annotation and ``legrad_image_id`` of an image are extra keys.

    Args:
        audit: audit of the run.
        flagged: the images and their cues.
        threshold: share of a map's maximum.
        pictures: folder into which the images are written under their ``file_name``. Without it,
            that is the path below the source's place if the source is a folder of images, and the
            image_id otherwise.
    """
    rows = _image_rows(audit.results, flagged["image_id"].unique().tolist())
    cues = {cue: number for number, cue in enumerate(sorted(flagged["cue"].unique()), 1)}
    if pictures is None:
        names = [_file_name(audit.results, row) for row in rows]
    else:
        names = list(map_in_threads(lambda row: _written(audit.results, row, pictures), rows))
    images = {
        row["image_id"]: {
            "id": number,
            "file_name": name,
            "width": row["width"],
            "height": row["height"],
            "legrad_image_id": row["image_id"],
        }
        for number, (row, name) in enumerate(zip(rows, names, strict=True), 1)
    }
    return {
        "info": {"description": f"heat of at least {threshold:g} of each map's maximum"},
        "images": list(images.values()),
        "categories": [{"id": n, "name": cue, "supercategory": "cue"} for cue, n in cues.items()],
        "annotations": [
            annotation | {"id": number}
            for number, annotation in enumerate(
                _annotations(audit.results, flagged, images, cues, threshold), 1
            )
        ],
    }


def _annotations(
    results: Results,
    flagged: pd.DataFrame,
    images: Mapping[str, Mapping[str, Any]],
    cues: Mapping[str, int],
    threshold: float,
) -> Iterator[dict[str, Any]]:
    """The regions of all cues that have maps, without ``id``."""
    for cue, rows in flagged.groupby("cue", sort=True):
        if not has_maps(results, str(cue)):
            continue
        _, maps = results.maps(str(cue), rows["image_id"].tolist())
        for row, heat in zip(rows.to_dict(orient="records"), maps, strict=True):
            image = images[row["image_id"]]
            if not np.isfinite(heat).all():
                continue
            size = image["width"], image["height"]
            mask = hot_region(heat, size, results.preprocess, threshold)
            if mask.any():
                yield {
                    "image_id": image["id"],
                    "category_id": cues[str(cue)],
                    "bbox": list(bounding_box(mask)),
                    "area": int(mask.sum()),
                    "segmentation": {
                        "counts": compressed(run_lengths(mask)),
                        "size": list(mask.shape),
                    },
                    "iscrowd": 0,
                    "score": float(row["score"]),
                    "image_label": row["class"],
                    "heat_peak": float(heat.max()),
                }


def _image_rows(results: Results, image_ids: list[str]) -> list[dict[str, Any]]:
    """Sizes of images and where their bytes are, in order of the ids."""
    table = results.dataset.to_table(
        columns=["image_id", "width", "height", *FETCH_COLUMNS],
        filter=ds.field("image_id").isin(pa.array(image_ids, pa.string())),
    )
    rows: list[dict[str, Any]] = table.sort_by("image_id").to_pylist()
    return rows


def _file_name(results: Results, row: Mapping[str, Any]) -> str:
    """A relative path without ``..``, because keys of a foreign archive may hold any text."""
    name = row["key"] if results.origin.format == "folder" else row["image_id"]
    return posixpath.normpath(f"/{name}").lstrip("/")


def _written(results: Results, row: Mapping[str, Any], folder: Location) -> str:
    """Write an image below a folder; returns its file name, which has an image's extension.

    The bytes are those of the source, unless EXIF says to rotate the image: some tools ignore that.
    """
    data = results.origin.fetch(row)
    with open_image(data, results.origin.max_pixels) as image:
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        if orientation(image) != 1:
            buffer = io.BytesIO()
            to_rgb(image).save(buffer, kind, quality=95)
            data = buffer.getvalue()
    name = _file_name(results, row)
    if not (mimetypes.guess_type(name)[0] or "").startswith("image/"):
        name += f".{kind.lower()}"
    folder.child(name).write(data)
    return name


def hot_region(
    heat: NDArray[np.float32], size: tuple[int, int], preprocess: Preprocess, share: float
) -> Mask:
    """(height, width) pixels whose heat is at least a share of the map's maximum.

    Args:
        heat: (h, w) raw map.
        size: (width, height) of the original.
    """
    width, height = size
    if not float(heat.max()) > 0:
        return np.zeros((height, width), dtype=bool)
    large = upsample(heat, (height, width), preprocess.box(width, height))
    return np.asarray(large >= share * float(heat.max()))


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """COCO's box of a mask that is not empty: left, top, width, height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return (left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)


def run_lengths(mask: Mask) -> list[int]:
    """COCO's uncompressed run lengths: by columns, zeros first."""
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return [0, *runs] if flat[0] else [int(run) for run in runs]


def compressed(runs: Sequence[int]) -> str:
    """COCO's text form of run lengths.

    From the fourth on, a run is stored as its difference from the run two before. Each number is
    split into groups of 5 bits, lowest first, in two's complement; a sixth bit says that another
    group follows, and the character is "0" plus the group.
    """
    characters = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            characters.append(chr(ord("0") + group + 32 * more))
    return "".join(characters)
