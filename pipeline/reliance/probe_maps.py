"""Maps of where the probe looks, from a second run whose queries are the probe's directions.

The second run is stored with the edits and joined with the audited run by image_id. It explains
images of the tested classes and their rivals, and only those of one fold, by the probe that was not
fitted to this fold.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save

from legrad.queries.query import Query, Role
from pipeline.audit.class_members import rows_with_label
from pipeline.config import RunConfig
from pipeline.flow import run
from pipeline.progress.watch import Watch
from pipeline.reliance.edits import Vectors
from pipeline.reliance.probe import FOLDS, Probe, groups
from pipeline.reliance.shortlist import NO_PAIR
from pipeline.results import Results, open_results
from pipeline.results.reproduce import model_config, source_config
from pipeline.runs.manifest import RunFolder
from pipeline.storage.location import Options

FOLD = 0
"""The fold whose images are explained."""
_LONGEST_LABEL = 32
_VECTORS, _IDS = "probes.safetensors", "images.parquet"


def probe_maps(
    results: Results,
    folder: RunFolder,
    vectors: Mapping[str, Vectors],
    image_ids: Sequence[str],
    options: Options | None = None,
    watch: Watch | None = None,
) -> Results:
    """Results of the audited run joined with maps of the probe's directions.

    The maps are computed by a run of their own, unless an earlier call has stored them already.

    Args:
        results: results of the audited run.
        folder: where runs with probe maps are kept, each in a folder of its own.
        vectors: query name -> (E,) unit direction, see `probe_directions`.
        image_ids: images to explain, see `fold_images`; the others have NaN.
        options: storage options of the source and of the folder.
        watch: progress of the run.

    Raises:
        UsageError: the output cannot be written.
    """
    folder = _folder(folder, vectors, image_ids)
    folder.root.child(_VECTORS).write(save(dict(vectors)))
    buffer = io.BytesIO()
    pd.DataFrame({"image_id": image_ids}).to_parquet(buffer, index=False)
    folder.root.child(_IDS).write(buffer.getvalue())
    storage = dict(options or {})
    config = RunConfig(
        model=model_config(results.run),
        source=source_config(results.run, storage, f"{folder.uri}/{_IDS}"),
        queries=tuple(
            Query(name=name, role=Role.BASELINE, vector=f"{folder.uri}/{_VECTORS}#{name}")
            for name in vectors
        ),
        output=f"{folder.uri}/maps",
        output_options=storage,
    )
    run(config, watch)
    return open_results([results.folder.uri, config.output], options)


def probe_query(cls: str) -> str:
    """Name of the query for the probe of a class against its nearest rival.

    A label that is not a valid query name gets a part of its digest, so that names differ.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", cls.lower()).strip("_")[:_LONGEST_LABEL]
    if plain == cls.replace(" ", "_"):
        return f"probe_{plain}"
    return f"probe_{plain}_{hashlib.sha256(cls.encode()).hexdigest()[:8]}"


def probe_directions(
    probe: Probe,
    classes: Sequence[str],
    codes: NDArray[np.int64],
    rivals: NDArray[np.int64],
) -> dict[str, Vectors]:
    """Query name -> (E,) unit direction that tells a class from its rival.

    Args:
        probe: the one that did not see the images of `FOLD`.
        classes: (P,) labels, which name the queries.
        codes: (P,) their codes.
        rivals: (P,) codes of their rivals.
    """
    lines = probe.direction(codes, rivals)
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    names = [probe_query(cls) for cls in classes]
    return dict(zip(names, lines.astype(np.float32), strict=True))


def fold_images(results: Results, labels: Iterable[str], most: int) -> list[str]:
    """Sorted image_ids of `FOLD`, at most ``most`` of each label."""
    chosen: set[str] = set()
    for label in labels:
        ids = rows_with_label(results, label, {"image_id": "image_id"})["image_id"].to_pylist()
        of_fold = compress(ids, groups(ids) % FOLDS == FOLD)
        chosen.update(sorted(of_fold)[:most])
    return sorted(chosen)


def _folder(parent: RunFolder, vectors: Mapping[str, Vectors], ids: Sequence[str]) -> RunFolder:
    """A subfolder whose name is a digest of the directions and images."""
    content = {name: [float(value) for value in row] for name, row in vectors.items()}
    name = f"probe-{NO_PAIR.digest({'vectors': content, 'ids': list(ids)})}"
    return RunFolder(parent.root.child(name), f"{parent.uri}/{name}")
