"""Where the probe looks: its directions as a second query set through the same pipeline.

A run of its own beside the edits, over images of the tested classes and their rivals, joined to the
first by image_id. Only images of one fold are explained, with the probe that did not see that fold,
so that no image is shown by a probe that learned from it.
"""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from safetensors.numpy import save

from legrad.queries.queries import Query, Role
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.flow import run
from pipeline.progress.watch import Watch
from pipeline.reliance.probe_statistics import FOLDS, groups
from pipeline.reliance.reliance import Reliance
from pipeline.reliance.task import PairTask
from pipeline.results import Results, open_results
from pipeline.results.reproduce import model_config, source_config
from pipeline.runs.manifest import RunFolder
from pipeline.schema import Status

FOLD = 0
"""Whose images are explained."""
_LONGEST = 32
_VECTORS, _IDS = "probes.safetensors", "images.parquet"


def probe_maps(reliance: Reliance, watch: Watch | None = None) -> Results:
    """The audited run with maps of the probe's directions, made now where they are not there.

    Returns:
        The results of both runs as one. `probe_query` names the query of a class against its
        rival; images without such a map have NaN.

    Raises:
        UsageError: no pair is tested, or the output cannot be written.
    """
    classes = list(dict.fromkeys(pair.cls for pair in reliance.listed))
    if not classes:
        raise UsageError("probe maps: no pair is flagged for association, so none is tested")
    vectors, ids = _vectors(reliance, classes), _images(reliance)
    folder = _folder(reliance, vectors, ids)
    folder.root.child(_VECTORS).write(save(vectors))
    buffer = io.BytesIO()
    pd.DataFrame({"image_id": ids}).to_parquet(buffer, index=False)
    folder.root.child(_IDS).write(buffer.getvalue())
    manifest, options = reliance.results.run, dict(reliance.options or {})
    config = RunConfig(
        model=model_config(manifest),
        source=source_config(manifest, options, f"{folder.uri}/{_IDS}"),
        queries=tuple(
            Query(
                name=probe_query(cls),
                role=Role.BASELINE,
                vector=f"{folder.uri}/{_VECTORS}#{probe_query(cls)}",
            )
            for cls in classes
        ),
        output=f"{folder.uri}/maps",
        output_options=options,
    )
    run(config, watch)
    return open_results([reliance.results.folder.uri, config.output], reliance.options)


def probe_query(cls: str) -> str:
    """Name of the query that holds the probe of a class against its nearest rival.

    A label that is no query name by itself gets a piece of its digest, so that no two share one.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", cls.lower()).strip("_")[:_LONGEST]
    if plain == cls.replace(" ", "_"):
        return f"probe_{plain}"
    return f"probe_{plain}_{hashlib.sha256(cls.encode()).hexdigest()[:8]}"


def _vectors(reliance: Reliance, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Unit directions of the probe that did not see `FOLD`."""
    codes = np.array([reliance.found.known.index[cls] for cls in classes])
    lines = reliance.probes[FOLD].direction(codes, reliance.rivals[codes])
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    names = [probe_query(cls) for cls in classes]
    return dict(zip(names, lines.astype(np.float32), strict=True))


def _images(reliance: Reliance) -> list[str]:
    """Ids of images of the fold, of every tested class and rival as many as are edited."""
    labels = {name for pair in reliance.listed for name in (pair.cls, pair.rival)}
    wanted = ds.field("label").isin(pa.array(sorted(labels), pa.string()))
    frame = reliance.results.dataset.to_table(
        columns=["image_id", "label"], filter=wanted & (ds.field("status") == str(Status.OK))
    ).to_pandas()
    frame = frame[groups(frame["image_id"].tolist()) % FOLDS == FOLD].sort_values("image_id")
    some = frame.groupby("label").head(reliance.settings.reliance.images)
    return sorted(map(str, some["image_id"]))


def _folder(reliance: Reliance, vectors: Mapping[str, np.ndarray], ids: Sequence[str]) -> RunFolder:
    """A folder for just these directions and images."""
    content = {name: [float(value) for value in row] for name, row in vectors.items()}
    task = PairTask("", "", None, (), (), ())
    name = f"probe-{task.digest({'vectors': content, 'ids': list(ids)})[:24]}"
    return RunFolder(reliance.folder.root.child(name), f"{reliance.folder.uri}/{name}")
