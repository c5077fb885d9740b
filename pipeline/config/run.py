"""Settings of a whole run."""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from legrad import catalog
from legrad.queries import Query, Role
from legrad.settings import Settings
from pipeline.config.model import ModelConfig
from pipeline.config.source import SourceConfig
from pipeline.schema import OWN_LABEL, RESERVED, Status

MAX_QUERIES = 256
DEMO_ALIAS = "demo"
"""Alias of the drawn data set, the one the mini model was trained for."""


class StoreConfig(Settings):
    """What is kept.

    Attributes:
        embeddings: the image embedding, float16 (the audit's probe needs it).
        captions: the source's captions.
    """

    embeddings: bool = True
    captions: bool = True


class RuntimeConfig(Settings):
    """How the work is spread; changes no result.

    Attributes:
        actors: number of model replicas; ``auto``: one a GPU, else one for two cores, at most 8.
        gpus_per_actor: GPUs each replica reserves; ``auto``: 1 where the cluster has any.
        threads_per_actor: CPU threads of a replica without a GPU; ``auto``: cores / actors.
        batch_size: images explained at once.
        rows_per_part: rows of a Parquet part, the unit of commit; ``auto``: a minute of work.
        image_timeout: seconds one image may take to decode.
        isolate: explain in processes that may die from the start, not only what killed a worker.
        max_failed_fraction: share of failed rows above which a run stops, after some hundreds.
        redo: statuses whose rows the same command does again.
        report_every: seconds between progress lines.
    """

    actors: PositiveInt | Literal["auto"] = "auto"
    gpus_per_actor: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    threads_per_actor: PositiveInt | Literal["auto"] = "auto"
    batch_size: PositiveInt = 32
    rows_per_part: PositiveInt | Literal["auto"] = "auto"
    image_timeout: Annotated[float, Field(gt=0)] = 120.0
    isolate: bool = False
    max_failed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    redo: list[Status] = Field(default_factory=lambda: [Status.READ_ERROR])
    report_every: Annotated[float, Field(gt=0)] = 10.0


class RunConfig(Settings):
    """One run: a source, a model, queries, and where the results go."""

    model: ModelConfig
    source: SourceConfig
    queries: tuple[Query, ...]
    output: str
    output_options: dict[str, Any] = Field(default_factory=dict, repr=False)
    store: StoreConfig = StoreConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _queries_are_sound(self) -> "RunConfig":
        if not self.queries:
            raise ValueError("queries: none given; name at least one class or cue")
        if len(self.queries) > MAX_QUERIES:
            raise ValueError(
                f"queries: {len(self.queries)}, at most {MAX_QUERIES} in one run; make several "
                "runs, they join on image_id"
            )
        counts = Counter(query.name for query in self.queries)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"queries: {', '.join(twice)} stand more than once")
        taken = [name for name in counts if name == OWN_LABEL or name in RESERVED]
        if taken:
            raise ValueError(f"queries: {', '.join(taken)} would clash with columns of the output")
        return self

    @model_validator(mode="after")
    def _output_is_elsewhere(self) -> "RunConfig":
        for uri in self.source.uri:
            if f"{self.output.rstrip('/')}/".startswith(f"{uri.rstrip('/')}/"):
                raise ValueError(
                    f"output {self.output} lies inside the source {uri}: the next attempt would "
                    "take the results for images"
                )
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before the run."""
        if self.model.name == catalog.MINI and self.source.alias != DEMO_ALIAS:
            return (f"{catalog.MINI_WARNING}. Set model.name and model.pretrained.",)
        return ()

    @property
    def labels(self) -> dict[str, str]:
        """Label of the data set -> name of its class query (the first one)."""
        named = [(q.label, q.name) for q in self.queries if q.role is Role.CLASS and q.label]
        return dict(reversed(named))
