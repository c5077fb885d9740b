"""Settings of a whole run."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from legrad.models import catalog
from legrad.models.definition import MINI
from legrad.models.tokenizers import obstacle
from legrad.queries.query import Query, Role, check_differences, with_distinct_names
from legrad.queries.selection import MapsMode, Selection
from legrad.settings import PathOrUri, Settings, StorageOptions
from pipeline.config.model_settings import AnyModelConfig, ClassifierConfig
from pipeline.config.query_labels import class_queries, queries_by_label
from pipeline.config.source_settings import SourceConfig
from pipeline.schema import OWN_LABEL, PREDICTED_CLASS, RESERVED, STAND_INS, Status

MAX_QUERIES = 256
"""Most columns of maps in a run."""
MAX_SCORES = 4096
"""Most queries in a run."""
LOGIT = "logit_"
"""How the names of a classifier's queries begin, which keeps its columns apart from cosines."""
DEMO_ALIAS = "demo"
"""Alias of the demo's data set, for which the mini model was trained."""


class MapsConfig(Settings):
    """Which maps of classes are computed and kept; those of cues and baselines always are.

    Attributes:
        mode: ``all``: every map; ``own_label``: the map of the image's own class, in the single
            column ``heatmap__own_label``, the first class of an image with several labels;
            ``own_labels``: the maps of all its classes, each class in its own column; ``top_k``:
            maps of the ``k`` classes with the highest scores; ``predicted``: the map of the one
            with the highest score, which a classifier with more than 256 classes keeps in the
            single column ``heatmap__predicted``; ``above``: maps of classes with a score of at
            least ``threshold``.
        k: number of classes, for ``top_k``.
        threshold: least score (a cosine; for a classifier a logit), for ``above``.
    """

    mode: MapsMode = "all"
    k: PositiveInt | None = None
    threshold: float | None = None

    @model_validator(mode="after")
    def _as_the_mode_says(self) -> "MapsConfig":
        for name, mode in (("k", "top_k"), ("threshold", "above")):
            is_set = getattr(self, name) is not None
            if is_set != (self.mode == mode):
                needs = "needs" if self.mode == mode else "takes no"
                raise ValueError(f"mode {self.mode} {needs} `{name}`")
        return self


def _as_mode(value: Any) -> Any:
    return {"mode": value} if isinstance(value, str) else value


class StoreConfig(Settings):
    """What is stored.

    Attributes:
        maps: which maps are stored; a mode alone is enough.
        embeddings: whether image embeddings are stored; the audit's probe needs them.
        captions: whether captions of the source are stored.
        properties: whether brightness, sharpness, JPEG quality and the like are measured and
            stored; the audit compares them between classes.
    """

    maps: Annotated[MapsConfig, BeforeValidator(_as_mode)] = MapsConfig()
    embeddings: bool = True
    captions: bool = True
    properties: bool = True


class ActorRange(Settings):
    """Size of a pool of replicas that grows and shrinks with the work.

    Attributes:
        min: least number of replicas, with which a run starts.
        max: largest number.
    """

    min: PositiveInt = 1
    max: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> "ActorRange":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


class RuntimeConfig(Settings):
    """How the work is distributed; this changes no result.

    Attributes:
        actors: number of model replicas; ``auto``: as many as the GPUs hold, else one for two
            cores, at most 8; ``{min, max}``: a pool that grows with the work.
        gpus_per_actor: GPUs that each replica reserves, a fraction or a whole number; ``auto``: 1
            where the cluster has GPUs.
        threads_per_actor: CPU threads of a replica without a GPU; ``auto``: cores / actors.
        batch_size: number of images explained at once; ``auto``: the fastest of several sizes that
            are tried on the device.
        rows_per_part: rows in a Parquet part, which is committed as one; ``auto``: about 15
            seconds of work.
        changed_shards: what to do when a shard is no longer what an earlier attempt read:
            ``refuse``, or ``keep`` the rows that are committed and add those with new ids.
        image_timeout: longest time, in seconds, to decode one image.
        isolate: whether every image is processed in a separate process that may die, and not only
            images that killed a worker before.
        max_failed_fraction: share of failed rows above which a run stops, once it has some hundred.
        redo: statuses of rows that a resumed run processes again.
        report_every: seconds between progress lines.
        wait_resources: longest wait, in seconds, for the nodes that a run needs on a cluster.
    """

    actors: PositiveInt | ActorRange | Literal["auto"] = "auto"
    gpus_per_actor: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    threads_per_actor: PositiveInt | Literal["auto"] = "auto"
    batch_size: PositiveInt | Literal["auto"] = 32
    rows_per_part: PositiveInt | Literal["auto"] = "auto"
    changed_shards: Literal["refuse", "keep"] = "refuse"
    image_timeout: Annotated[float, Field(gt=0)] = 120.0
    isolate: bool = False
    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    redo: list[Status] = Field(default_factory=lambda: [Status.READ_ERROR])
    report_every: Annotated[float, Field(gt=0)] = 10.0
    wait_resources: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _gpus_can_be_given(self) -> "RuntimeConfig":
        gpus = self.gpus_per_actor
        if gpus != "auto" and gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"gpus_per_actor {gpus:g}: expected a fraction below 1, or a whole number"
            )
        return self


class RunConfig(Settings):
    """One run: a source, a model, queries, and where the results go.

    Attributes:
        model: the model: a vision-language model, or with ``kind: classifier`` a classifier.
        source: where the images are.
        queries: a list of queries, or the file of a query set. A classifier has its classes as
            queries, so none need be named; queries that are named are the labels of some of its
            classes.
        output: folder or URI of the results.
        output_options: storage options of fsspec for the output; never stored with the results.
        store: what is stored.
        runtime: how the work is distributed.
    """

    model: AnyModelConfig
    source: SourceConfig
    queries: Annotated[tuple[Query, ...], Field(validate_default=True)] = ()
    output: PathOrUri
    output_options: StorageOptions = Field(default_factory=dict, repr=False)
    store: StoreConfig = StoreConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @field_validator("queries", mode="before")
    @classmethod
    def _classes_of_a_classifier(cls, queries: Any, info: ValidationInfo) -> Any:
        """The classes of a classifier, unless some of them are named."""
        model = info.data.get("model")
        if queries or not isinstance(model, ClassifierConfig):
            return queries
        return [
            {"name": query.name, "role": "class", "label": query.label, "prompts": query.text}
            for query in class_queries(model.class_names, RESERVED, LOGIT)
        ]

    @field_validator("queries", mode="after")
    @classmethod
    def _distinct_from_names(cls, queries: tuple[Query, ...]) -> tuple[Query, ...]:
        """Store names instead of ``distinct: true``, so that they are part of the identity."""
        return with_distinct_names(queries)

    @model_validator(mode="after")
    def _queries_are_sound(self) -> "RunConfig":
        if not self.queries:
            raise ValueError("queries: the list is empty; name at least one class or cue")
        if len(self.queries) > MAX_SCORES:
            raise ValueError(
                f"queries: {len(self.queries)}; a run has at most {MAX_SCORES}. Name some of them "
                "in each of several runs, which join on image_id"
            )
        if len(self.map_columns) > MAX_QUERIES:
            modes = "own_label or predicted" if self.classes else "own_label"
            raise ValueError(
                f"queries: {len(self.map_columns)} columns of maps; a run has at most "
                f"{MAX_QUERIES}. Set store.maps: {modes}, or make several runs, which join on "
                "image_id"
            )
        counts = Counter(query.name for query in self.queries)
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise ValueError(f"queries: {', '.join(repeated)} appear more than once")
        taken = [name for name in counts if name in STAND_INS or name in RESERVED]
        if taken:
            raise ValueError(f"queries: {', '.join(taken)} would clash with columns of the output")
        check_differences(self.queries)
        if self.store.maps.mode != "all" and not any(self.selection.classes):
            raise ValueError(
                f"store.maps: {self.store.maps.mode} needs at least one query of role class"
            )
        return self

    @model_validator(mode="after")
    def _texts_can_be_read(self) -> "RunConfig":
        if isinstance(self.model, ClassifierConfig):
            return self._classes_exist(self.model.class_names)
        lacking = obstacle(self.model.name)
        texts = [query.name for query in self.queries if query.prompts]
        if lacking and texts:
            raise ValueError(f"query {texts[0]!r} is a text, but {lacking}")
        return self

    def _classes_exist(self, classes: Sequence[str]) -> "RunConfig":
        for query in self.queries:
            if query.role is not Role.CLASS or query.label not in classes:
                raise ValueError(
                    f"query {query.name!r}: a classifier explains its classes only: expected role "
                    f"class and one of its classes as label ({', '.join(classes[:8])}, ...)"
                )
        return self

    @model_validator(mode="after")
    def _output_is_elsewhere(self) -> "RunConfig":
        for uri in self.source.uris:
            if f"{self.output.rstrip('/')}/".startswith(f"{uri.rstrip('/')}/"):
                raise ValueError(
                    f"output {self.output} is inside the source {uri}: the next attempt would read "
                    "the results as images"
                )
        return self

    @model_validator(mode="after")
    def _workers_can_reach(self) -> "RunConfig":
        for uri in (*self.source.uris, self.output):
            if uri.startswith("memory://"):
                raise ValueError(
                    f"{uri}: memory:// is the memory of one process, where the workers of a run "
                    "find nothing; use a folder or a bucket"
                )
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user, shown before the run starts."""
        if self.model.name == MINI and self.source.alias != DEMO_ALIAS:
            return (f"{catalog.MINI_WARNING}. Set model.name and model.pretrained.",)
        return ()

    @property
    def labels(self) -> dict[str, str]:
        """Map each label of the data set to the name of its class query, the first if several."""
        return queries_by_label(self.queries)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Labels of the queries of a classifier; None for a vision-language model."""
        if not isinstance(self.model, ClassifierConfig):
            return None
        return tuple(query.label or "" for query in self.queries)

    @property
    def map_columns(self) -> tuple[str, ...]:
        """Names that have columns for maps: queries, or one of `STAND_INS` for all classes."""
        names = [query.name for query in self.queries]
        others = [query.name for query in self.queries if query.role is not Role.CLASS]
        if self.store.maps.mode == "own_label":
            return (*others, OWN_LABEL)
        if self.store.maps.mode == "predicted" and self.classes and len(names) > MAX_QUERIES:
            return (PREDICTED_CLASS,)
        return tuple(names)

    @property
    def selection(self) -> Selection:
        """The rule of `store.maps` for these queries."""
        numbers = {query.name: number for number, query in enumerate(self.queries)}
        maps = self.store.maps
        return Selection(
            mode=maps.mode,
            classes=tuple(query.role is Role.CLASS for query in self.queries),
            labels={label: numbers[name] for label, name in self.labels.items()},
            k=maps.k or 1,
            threshold=maps.threshold or 0.0,
        )
