"""Where the probe looks: its directions as a second query set through the same pipeline.

A run of its own beside the edits, over the images that need it, joined to the first by image_id.
Only images of one fold are explained, with the probe that did not see that fold, so that no image
is shown by a probe that learned from it.
"""

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from safetensors.numpy import save

from legrad.queries import Query, Role
from pipeline.audit.reliance.reliance import Reliance
from pipeline.audit.reliance.sums import FOLDS, groups
from pipeline.audit.reliance.task import PairTask
from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.flow import run
from pipeline.manifest import RunFolder
from pipeline.monitor.watch import Watch
from pipeline.results import Results, open_results
from pipeline.results.again import model_config, source_config

FOLD = 0
"""Whose images are explained."""
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
    vectors, ids = _vectors(reliance, classes), _images(list(reliance.tasks.values()))
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
    """Name of the query that holds the probe of a class against its nearest rival."""
    plain = re.sub(r"[^a-z0-9]+", "_", cls.lower()).strip("_")
    return f"probe_{plain}"[:48]


def _vectors(reliance: Reliance, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Unit directions of the probe that did not see `FOLD`."""
    codes = np.array([reliance.found.known.index[cls] for cls in classes])
    lines = reliance.probes[FOLD].direction(codes, reliance.rivals[codes])
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    names = [probe_query(cls) for cls in classes]
    if len(set(names)) < len(names):
        raise UsageError(f"probe maps: two class names are alike but for signs: {sorted(classes)}")
    return dict(zip(names, lines.astype(np.float32), strict=True))


def _images(tasks: Sequence[PairTask]) -> list[str]:
    """Ids of the edited images that are of the fold."""
    rows = (row for task in tasks for row in (*task.images, *task.targets))
    every = sorted({str(row["image_id"]) for row in rows})
    return [name for name, fold in zip(every, groups(every) % FOLDS, strict=True) if fold == FOLD]


def _folder(reliance: Reliance, vectors: Mapping[str, np.ndarray], ids: Sequence[str]) -> RunFolder:
    """A folder for just these directions and images."""
    content = {name: [float(value) for value in row] for name, row in vectors.items()}
    task = PairTask("", "", None, (), (), ())
    name = f"probe-{task.digest({'vectors': content, 'ids': list(ids)})[:24]}"
    return RunFolder(reliance.folder.root.child(name), f"{reliance.folder.uri}/{name}")
