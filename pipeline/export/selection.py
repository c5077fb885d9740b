"""Images that a person selected, in the formats of other tools."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.audit.names import has_maps
from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.export.coco import coco
from pipeline.export.fiftyone import write_fiftyone
from pipeline.export.tables import flagged_pairs, groups
from pipeline.machine import map_in_threads
from pipeline.report.shown_images import PICTURE_COLUMNS, copy_picture
from pipeline.results import Results
from pipeline.storage.tables import write_table

MOST_PICTURES = 5000
"""Largest number of images in a file that holds their pictures or their heat."""
_SIDE = 256


def write_groups(audit: Audit, images: pd.DataFrame, file: Path) -> None:
    """Write each image's group: by presence of the searched cue, or of the flagged cues.

    Args:
        audit: audit of the run.
        images: ``image_id``, ``class`` (its label, or empty), ``cue`` (the query or text of
            the search, or empty) and ``score``.
        file: the .csv to write.

    Raises:
        UsageError: presence of the cue is not measured, or no cue is flagged.
    """
    named = [str(cue) for cue in images["cue"].unique() if cue]
    cues = named or list(dict.fromkeys(cue for _, cue in flagged_pairs(audit)))
    table = groups(audit, cues)
    write_table(table[table["image_id"].isin(images["image_id"])], str(file))


def write_coco(audit: Audit, images: pd.DataFrame, file: Path) -> None:
    """Write the heat of the searched query as regions; see `coco`.

    Args:
        audit: audit of the run.
        images: see `write_groups`.
        file: the .json to write.

    Raises:
        UsageError: the search was not for a query whose maps are stored, or there are more images
            than `MOST_PICTURES`.
    """
    _require_few(images)
    cues = [str(cue) for cue in images["cue"].unique()]
    if not cues or not all(cue and has_maps(audit.results, cue) for cue in cues):
        raise UsageError(
            "COCO holds stored heat: search for a stored query first, or make the text a query of "
            "the next run"
        )
    file.write_text(json.dumps(coco(audit, images), allow_nan=False))


def zip_fiftyone(audit: Audit, images: pd.DataFrame, file: Path) -> None:
    """Pictures, heat and labels as a folder that FiftyOne reads, in one file; see `write_fiftyone`.

    Args:
        audit: audit of the run.
        images: see `write_groups`.
        file: the .zip to write.

    Raises:
        UsageError: there are more than `MOST_PICTURES`, or one cannot be fetched.
    """
    _require_few(images)
    folder = file.with_suffix("")
    write_fiftyone(audit, images, folder)
    shutil.make_archive(str(folder), "zip", folder)
    shutil.rmtree(folder)


def write_atlas(
    results: Results, images: pd.DataFrame, vectors: NDArray[np.float32], file: Path
) -> None:
    """Write one row per image with its coordinates and picture, for Embedding Atlas.

    ``x`` and ``y`` are the two principal components of the embeddings, ``image`` is a small WebP,
    null where the source no longer has the image.

    Args:
        results: results of the run.
        images: see `write_groups`.
        vectors: (n, E) embeddings of the images.
        file: the .parquet to write.

    Raises:
        UsageError: there are more than `MOST_PICTURES`.
    """
    _require_few(images)
    rows = results.rows.select(images["image_id"].tolist(), list(PICTURE_COLUMNS)).to_pylist()
    pictures = map_in_threads(lambda row: copy_picture(results, row, _SIDE).data, rows)
    plane = principal_plane(vectors)
    columns = {
        "image_id": pa.array(images["image_id"], pa.string()),
        "label": pa.array(images["class"], pa.string()),
        "score": pa.array(images["score"], pa.float32(), from_pandas=True),
        "x": pa.array(plane[:, 0]),
        "y": pa.array(plane[:, 1]),
        "image": pa.array(list(pictures), pa.binary()),
    }
    pq.write_table(pa.table(columns), file)


def principal_plane(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 2) coordinates of vectors (n, E) along their two principal components."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    plane: NDArray[np.float32] = (centred @ axes[:, :-3:-1]).astype(np.float32)
    return plane


def _require_few(images: pd.DataFrame) -> None:
    if len(images) > MOST_PICTURES:
        raise UsageError(
            f"{len(images):,} images: a file with pictures or heat holds at most "
            f"{MOST_PICTURES:,}. Choose images, or narrow the search by a label or a condition."
        )
