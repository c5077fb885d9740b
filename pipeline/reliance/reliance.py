"""From a run's results to claims B and C': probe, edits, effects, each computed when asked for."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from legrad.queries.query import Query, Role
from pipeline.audit.findings import Findings
from pipeline.audit.names import Names
from pipeline.cluster.resources import Resources
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.reliance.claims import Claims, Directions, Pair
from pipeline.reliance.costs import EditCosts, costs
from pipeline.reliance.edit_run import Work, run_edits
from pipeline.reliance.edited import Edited
from pipeline.reliance.per_image import Contrast, per_image
from pipeline.reliance.probe import Probe, cross_fitted, fit
from pipeline.reliance.probe_quality import judge
from pipeline.reliance.probe_statistics import GROUPS, ProbeSums, collect
from pipeline.reliance.shortlist import Listed, shortlist, tasks
from pipeline.reliance.task import PairTask
from pipeline.results.reproduce import model_config
from pipeline.results.results import Results
from pipeline.runs.manifest import RunFolder
from pipeline.runs.model_facts import Prepared
from pipeline.stages.replica import ReplicaSettings, prepare
from pipeline.storage.location import Options, open_location

if TYPE_CHECKING:
    from pipeline.progress.watch import Watch

_BATCH = 32
_TEXTS = "directions"


@dataclass(frozen=True)
class Reliance:
    """The claims of reliance for the flagged pairs of an audit.

    Attributes:
        results: of the run.
        found: claim A.
        settings: of the audit.
        options: of the storage.
        tell: told what takes a while.
    """

    results: Results
    found: Findings
    settings: AuditConfig
    options: Options | None = None
    tell: Callable[[str], None] = lambda text: None

    @cached_property
    def folder(self) -> RunFolder:
        """Where edits, texts and probe maps are kept."""
        work = self.settings.reliance.work
        own = self.results.folder
        if work is None:
            return RunFolder(own.root.child("_run", "reliance"), f"{own.uri}/_run/reliance")
        return RunFolder(open_location(work, self.options), work)

    @cached_property
    def sums(self) -> ProbeSums:
        """Of the embeddings; one pass."""
        presence = self.found.presence
        names = [presence.histograms.cues[p] for p in np.flatnonzero(presence.measured)]
        return collect(self.results, self.found.population, presence, names)

    @cached_property
    def probe(self) -> Probe:
        """Fitted on everything; it only names rivals and judges nothing."""
        return fit(self.sums, np.ones(GROUPS), self.settings.reliance.ridge)

    @cached_property
    def probes(self) -> list[Probe]:
        """One a fold, which did not see it."""
        return cross_fitted(self.sums, np.ones(GROUPS), self.settings.reliance.ridge)

    @cached_property
    def rivals(self) -> NDArray[np.int64]:
        """(K,) place of each class's nearest rival, -1 for none."""
        known, least = self.found.population, self.settings.gates.class_images
        rivals = self.probe.rivals(least, known.audited)
        rivals[np.asarray(known.sizes) < least] = -1
        return rivals

    @cached_property
    def judged(self) -> pd.DataFrame:
        """How well the probe tells each class, see `judged.judge`; a second pass."""
        return judge(self.results, self.found.population, self.probes, self.rivals)

    @cached_property
    def listed(self) -> list[Listed]:
        """Pairs that are tested."""
        return shortlist(self.found, self.rivals, self.settings.reliance)

    @cached_property
    def tasks(self) -> dict[str, PairTask]:
        """File name of its edits -> pair."""
        about = self._about()
        every = tasks(self.results, self.found, self.listed, self.settings.reliance)
        return {f"edits-{task.digest(about)[:24]}.parquet": task for task in every}

    @property
    def left(self) -> dict[str, PairTask]:
        """Pairs whose edits are not there yet."""
        there = set(self.folder.root.files("edits-*.parquet"))
        return {name: task for name, task in self.tasks.items() if name not in there}

    @property
    def costs(self) -> EditCosts:
        """What it takes; reads the results, loads no model."""
        return costs(list(self.left.values()), len(self.tasks))

    @cached_property
    def pairs(self) -> dict[tuple[str, str], Pair]:
        """Edits of every pair, made now where they are not there yet.

        Raises:
            UsageError: the model cannot be loaded or has other weights, or the output cannot be
                written (``reliance.work`` names another place).
            RunError: it ended before its time; the same command continues.
        """
        left = self.left
        if left or (self.tasks and self._directions() is None):
            run_edits(left, self._work, self.folder, self.tell)
        rivals = {(one.cls, one.cue): one.rival for one in self.listed}
        found = {}
        for name, task in self.tasks.items():
            table = pq.read_table(io.BytesIO(self.folder.root.child(name).read()))
            key = (task.cls, task.cue)
            found[key] = Pair(*key, rivals[key], Edited.of(table))
        return found

    @cached_property
    def claims(self) -> Claims:
        """The statistics."""
        return Claims(self.found, self.sums, self.judged, self.directions, self.settings)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a tested pair: class, cue, and the columns of both claims."""
        pairs = list(self.pairs.values())
        return self.claims.frame(pairs) if pairs else pd.DataFrame(columns=["class", "cue"])

    def counterfactual(self, cls: str, cue: str) -> pd.DataFrame:
        """What every edit of a tested pair changed, image by image: see `per_image.per_image`.

        Raises:
            KeyError: the pair was not tested.
        """
        pair = self.pairs.get((cls, cue))
        if pair is None:
            some = ", ".join(f"{a} / {b}" for a, b in list(self.pairs)[:8]) or "none"
            raise KeyError(f"{cls!r}, {cue!r} was not tested; tested are {some}")
        return per_image(self.claims, pair, self.contrast(cls, pair.rival))

    def contrast(self, cls: str, rival: str) -> Contrast:
        """The cross-fitted probe of a class against another."""
        index = self.found.population.index
        return Contrast(self.probes, index[cls], index[rival])

    def probe_maps(self, watch: "Watch | None" = None) -> Results:
        """Results with maps of where the probe looks: see `probe_maps.probe_maps`.

        `probe_maps.probe_query` names the query of a class against its rival.

        Raises:
            UsageError: no pair is tested, or the output cannot be written.
        """
        from pipeline.reliance.probe_maps import FOLD, fold_images, probe_directions, probe_maps

        classes = list(dict.fromkeys(pair.cls for pair in self.listed))
        if not classes:
            raise UsageError("probe maps: no pair is flagged for association, so none is tested")
        codes = np.array([self.found.population.index[cls] for cls in classes], np.int64)
        vectors = probe_directions(self.probes[FOLD], classes, codes, self.rivals[codes])
        labels = {label for pair in self.listed for label in (pair.cls, pair.rival)}
        image_ids = fold_images(self.results, labels, self.settings.reliance.images)
        return probe_maps(self.results, self.folder, vectors, image_ids, self.options, watch)

    @cached_property
    def directions(self) -> Directions:
        """Texts of cues and classes, and of classes with a cue."""
        known = self._directions()
        if known is None:
            raise UsageError(f"{self.folder.uri}: the texts' directions are missing")
        lookup = Names(self.results, self.found)
        classes = {
            label: known[query]
            for label, query in lookup.class_queries.items()
            if label in self.found.population.index
        }
        controls = {}
        for number, pair in enumerate(self.listed):
            plus, own = known.get(f"control_{number}"), classes.get(pair.cls)
            if plus is not None and own is not None:
                controls[pair.cls, pair.cue] = plus - own
        cues = {cue: known[cue] for cue in self.found.presence.histograms.cues}
        return Directions(cues, classes, controls)

    def _about(self) -> dict[str, Any]:
        """What decides the edits beside the pair."""
        identity, config = self.results.run["identity"], self.settings.reliance
        kept = {key: value for key, value in identity.items() if key.startswith("model.")}
        queries = {key: value for key, value in identity.items() if key.startswith("query.")}
        shares = [config.region, config.object_region, config.floor, config.masks]
        return {"model": kept, "queries": queries, "shares": shares, "version": 2}

    def _queries(self) -> list[Query]:
        """All of the run's, and in words each class with its cue."""
        known = {query.name: query for query in self.results.queries}
        lookup, more = Names(self.results, self.found), []
        for number, pair in enumerate(self.listed):
            own, cue = known.get(lookup.class_queries.get(pair.cls, "")), known[pair.cue]
            if own is not None and own.prompts and cue.prompts:
                text = f"{own.prompts[0]} with {cue.prompts[0]}"
                name = f"control_{number}"
                control = Query.model_validate(
                    {"name": name, "role": Role.BASELINE, "prompts": [text]}
                )
                more.append(control.model_copy(update={"templates": own.templates}))
        return [*self.results.queries, *more]

    def _work(self, spread: Resources) -> Work:
        """Load the model once, encode the texts, and keep them beside the edits."""
        self.tell("loading the model and encoding the texts")
        identity = self.results.run["identity"]
        settings = ReplicaSettings(
            model_config(self.results.run), spread.device, spread.threads, _BATCH
        )
        queries = self._queries()
        remote = ray.remote(num_cpus=spread.cpus, num_gpus=spread.gpus, max_calls=1)(prepare)
        prepared: Prepared = ray.get(remote.remote(settings, queries))
        if prepared.digest != identity["model.weights_sha256"]:
            raise UsageError(
                f"{self.results.folder.uri}: {settings.model.name} has other weights here than in "
                "the run"
            )
        names = [query.name for query in queries]
        known = dict(zip(names, prepared.text_features, strict=True))
        buffer = io.BytesIO()
        np.savez(buffer, **known)
        self.folder.root.child(self._texts_name()).write(buffer.getvalue())
        masks = self.settings.reliance.masks
        return Work(
            settings,
            prepared.digest,
            known,
            self.settings.reliance,
            self.results.origin,
            int(identity["source.max_pixels"]),
            None if masks is None else open_location(masks, self.options),
            self.folder.root,
        )

    def _texts_name(self) -> str:
        texts = [query.model_dump(mode="json") for query in self._queries()]
        task = PairTask("", "", None, (), (), ())
        return f"{_TEXTS}-{task.digest({'texts': texts, **self._about()})[:24]}.npz"

    def _directions(self) -> Mapping[str, NDArray[np.float32]] | None:
        """The texts as they were encoded, or None if they were not."""
        place = self.folder.root.child(self._texts_name())
        if not place.exists():
            return None
        with np.load(io.BytesIO(place.read()), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
