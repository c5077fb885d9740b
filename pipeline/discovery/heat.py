"""Where the heat of a found cue lies: on the heat of its class, or apart from it.

A word whose heat lies where the class's own heat lies names a part of the object, or the object
itself. One whose heat lies elsewhere names something beside it. Maps are computed by a separate
run, restricted to the clearest images: those of the class with the highest scores for the cue.
"""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save

from legrad.queries.query import Query, Role
from pipeline.audit.evidence import heat_enrichment
from pipeline.audit.names import has_maps
from pipeline.audit.scores import Population, batches, count_population, embeddings
from pipeline.config import MAX_QUERIES, RunConfig, queries_by_label
from pipeline.config.audit_settings import AuditConfig
from pipeline.config.run_settings import MapsConfig, StoreConfig
from pipeline.config.source_settings import LabelsConfig
from pipeline.discovery.search import HEAT_IMAGES, Discovery, listed
from pipeline.discovery.words import WITHOUT_WORD
from pipeline.errors import RunError, UsageError
from pipeline.results import Results, open_results
from pipeline.results.reproduce import model_config, source_config
from pipeline.runs.manifest import RunFolder
from pipeline.schema import EMBEDDING, OWN_LABEL
from pipeline.storage.location import Location, Options

if TYPE_CHECKING:
    from PIL import Image

ON_CLASS = 0.6
"""Heat of the class on the hottest tenth of the cue's map, as a share of that on its own hottest
tenth, from which the cue lies on the class. On the demo's scenes overlays that are there reach .0
to .5, and words that the object itself raises .7 to 1."""
_CLEAREST = 10  # only a tenth of a class is clear: a rare cue is in few of its images
PICTURES, _EACH = 12, 3
"""Candidates of which a picture is drawn, and the images in it."""
_TABLE, _VECTORS = "images.parquet", "directions.safetensors"
_Pair = tuple[str, str]
"""Class and word."""


@dataclass(frozen=True)
class HeatPlan:
    """Maps that are computed.

    Attributes:
        images: (class, word) -> ids of the clearest images, the clearest first.
        names: word -> name of its query.
        directions: name of a thing or place without a word -> (E,) its direction.
    """

    images: Mapping[_Pair, Sequence[str]]
    names: Mapping[str, str]
    directions: Mapping[str, NDArray[np.float32]]

    @property
    def maps(self) -> int:
        """Number of maps."""
        return sum(map(len, self.images.values()))

    @property
    def folder(self) -> str:
        """Name of the folder of its run; each plan has its own."""
        lines = {word: line.tolist() for word, line in self.directions.items()}
        content = [[*pair, *ids] for pair, ids in self.images.items()]
        digest = hashlib.sha256(json.dumps([content, lines]).encode()).hexdigest()
        return f"heat-{digest[:16]}"


def with_heat(
    results: Results,
    settings: AuditConfig,
    discovery: Discovery,
    tell: Callable[[str], None],
    options: Options | None = None,
) -> Discovery:
    """The discovery with the column ``heat_on_class`` for the listed candidates.

    Maps that an earlier call computed are not computed again, and an interrupted
    run of maps is continued. If there are no maps, because the images cannot be read again or the
    output cannot be written, a message says why.
    """
    plan = plan_heat(results, count_population(results, settings.max_classes), discovery)
    if not plan.images:
        return discovery
    tell(f"{plan.maps:,} maps of the candidates, on the clearest images of each class")
    try:
        return add_heat(results, plan, discovery, options)
    except (UsageError, RunError) as error:
        tell(f"no heat: {error}")
        return discovery


def plan_heat(results: Results, population: Population, discovery: Discovery) -> HeatPlan:
    """Choose the clearest images of each listed candidate, in one pass over the embeddings."""
    rows = listed(discovery.candidates)
    words = list(dict.fromkeys(map(str, rows["word"])))[:MAX_QUERIES]
    of_class: dict[int, list[str]] = defaultdict(list)
    for cls, word in rows[["class", "word"]].itertuples(index=False, name=None):
        if word in words:
            of_class[population.index[cls]].append(word)
    best: dict[tuple[int, str], tuple[NDArray[np.float32], NDArray[np.object_]]] = {}
    for batch in batches(results, population, [], ["image_id", EMBEDDING]):
        vectors, ids = embeddings(batch.table), batch.table["image_id"].to_pandas().to_numpy(object)
        for code, mine in of_class.items():
            members = batch.members.rows[batch.members.codes == code]
            scores = vectors[members] @ np.stack([discovery.directions[word] for word in mine]).T
            for number, word in enumerate(mine):
                earlier = best.get((code, word), (np.zeros(0, np.float32), np.zeros(0, object)))
                both = np.append(earlier[0], scores[:, number]), np.append(earlier[1], ids[members])
                most = min(HEAT_IMAGES // len(mine), int(population.sizes[code]) // _CLEAREST)
                kept = np.argsort(-both[0], kind="stable")[: max(1, most)]
                best[code, word] = both[0][kept], both[1][kept]
    things = set(rows.loc[rows["kind"].isin(WITHOUT_WORD), "word"])
    clearest = {
        (population.classes[code], word): discovery.clearest.get(word, tuple(ids))[: len(ids)]
        for (code, word), (_, ids) in best.items()
    }
    return HeatPlan(
        clearest,
        {word: f"found_{number}" for number, word in enumerate(words, 1)},
        {word: discovery.directions[word] for word in words if word in things},
    )


def add_heat(
    results: Results, plan: HeatPlan, discovery: Discovery, options: Options | None = None
) -> Discovery:
    """The discovery with heat and pictures of the listed candidates; computes missing maps.

    Places are left out of the column: heat of the class is how they were found.

    Raises:
        UsageError: the images cannot be read, the model cannot be loaded here, or the output
            cannot be written.
    """
    maps = _maps(results, plan, options)
    both = Results((*results.runs, *maps.runs))
    of_class = queries_by_label(results.queries)
    heat: dict[_Pair, float] = {}
    pictures: dict[_Pair, str] = {}
    for (cls, word), ids in plan.images.items():
        name = plan.names[word]
        if len(pictures) < PICTURES and len(ids):
            columns = [name] if cls not in of_class else [of_class[cls], name]
            file = f"discovery/{plan.folder}/{len(pictures) + 1}.webp"
            _save(both.figure(ids[:_EACH], columns), results.folder.root.child("_run", file))
            pictures[cls, word] = file
        query = None if word in discovery.clearest else of_class.get(cls)
        if query is None or not (has_maps(results, query) or has_maps(results, OWN_LABEL)):
            continue
        own, of_word = results.maps(query, ids)[1], maps.maps(name, ids)[1]
        known = ~np.isnan(own).any(axis=(1, 2)) & ~np.isnan(of_word).any(axis=(1, 2))
        own, of_word = own[known], of_word[known]
        if len(own):
            whole = np.nanmean(heat_enrichment(own, own))
            heat[cls, word] = float(np.nanmean(heat_enrichment(own, of_word)) / whole)
    pairs = list(discovery.candidates[["class", "word"]].itertuples(index=False, name=None))
    frame = discovery.candidates.assign(
        heat_on_class=[heat.get(pair, np.nan) for pair in pairs],
        picture=[pictures.get(pair, "") for pair in pairs],
    )
    return replace(discovery, candidates=frame)


def _save(picture: "Image.Image", file: Location) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    file.write(buffer.getvalue())


def _maps(results: Results, plan: HeatPlan, options: Options | None) -> Results:
    """Results of the run that the plan describes, which is continued or made if need be."""
    from pipeline.flow import run  # imports Ray

    parent, path = results.folder, ("_run", "discovery", plan.folder)
    folder = RunFolder(parent.root.child(*path), "/".join((parent.uri, *path)))
    storage = dict(options or {})
    source = source_config(results.run, storage, f"{folder.uri}/{_TABLE}")
    folder.root.child(_TABLE).write(_table(plan, source.id_prefix))
    if plan.directions:
        vectors = {plan.names[word]: line for word, line in plan.directions.items()}
        folder.root.child(_VECTORS).write(save(vectors))
    labels = LabelsConfig(uri=f"{folder.uri}/{_TABLE}")
    plain: dict[str, object] = {
        "labels": labels,
        "label_names": None,
        "label_columns": (),
        "carry": {},
    }
    config = RunConfig(
        model=model_config(results.run),
        source=source.model_copy(update=plain | {"label_separator": None}),
        queries=tuple(_query(plan, word, folder) for word in plan.names),
        store=StoreConfig(
            maps=MapsConfig(mode="own_labels"), embeddings=False, captions=False, properties=False
        ),
        output=f"{folder.uri}/maps",
        output_options=storage,
    )
    run(config)
    return open_results(config.output, options)


def _query(plan: HeatPlan, word: str, folder: RunFolder) -> Query:
    """A query of the role class, so that only images with its label get a map."""
    name = plan.names[word]
    if word in plan.directions:
        return Query(name=name, role=Role.CLASS, vector=f"{folder.uri}/{_VECTORS}#{name}")
    return Query(name=name, role=Role.CLASS, prompts=(word,))


def _table(plan: HeatPlan, prefix: str) -> bytes:
    """A Parquet file with the ids of the images, and the queries that each gets maps of."""
    queries: dict[str, list[str]] = defaultdict(list)
    for (_, word), ids in plan.images.items():
        for image_id in ids:
            queries[image_id].append(plan.names[word])
    keys = [image_id.removeprefix(prefix) for image_id in queries]
    table = pa.table({"image_id": list(queries), "key": keys, "label": list(queries.values())})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def apart(candidates: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What lies apart from the class's heat, or was not compared, and what lies on it."""
    on_class = candidates["heat_on_class"] >= ON_CLASS
    return candidates[~on_class], candidates[on_class]
