"""The stages of a run as Ray Data executes them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from pipeline.cluster.resources import Resources
from pipeline.cluster.session import RETRIES, data_settings
from pipeline.plan import Plan
from pipeline.progress.progress import Reporter
from pipeline.schema import with_book
from pipeline.sources.datasource import ImageSource
from pipeline.sources.read_unit import Unit
from pipeline.stages.decode import Decoder, Decoding
from pipeline.stages.explain import Explainer
from pipeline.stages.isolated import IsolatedExplainer, IsolatedSettings
from pipeline.storage.retries import TRANSIENT


def read(units: Sequence[Unit], plan: Plan, reporter: Reporter) -> Dataset:
    """Shards -> rows of encoded bytes, skipping rows that are already committed."""
    source = ImageSource(plan.config.source, list(units), reporter, plan.source.facts)
    dataset: Dataset = ray.data.read_datasource(
        source,
        override_num_blocks=len(source.tasks()),
        ray_remote_args={"max_retries": RETRIES},
    )
    return dataset


def decode(rows: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Encoded bytes -> uint8 pixels of the model's input size."""
    runtime = plan.config.runtime
    return rows.map_batches(
        decoder(plan, reporter, runtime.image_timeout).__call__,
        batch_format="pyarrow",
        batch_size=plan.batch_size,
        max_retries=RETRIES,
    )


def explain(pixels: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Pixels -> scores, encoded maps and embeddings, in a pool of model replicas."""
    return _in_actors(pixels, plan, Explainer, explainer_arguments(plan, reporter))


def explain_isolated(rows: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
    """Encoded bytes -> maps, as `decode` and `explain`, but no image can end a worker."""
    return _in_actors(rows, plan, IsolatedExplainer, isolated_arguments(plan, reporter))


def explainer_arguments(plan: Plan, reporter: Reporter) -> dict[str, Any]:
    """Arguments of the `Explainer` of a run."""
    return {
        "settings": plan.settings,
        "text_features": plan.prepared.text_features,
        "schema": with_book(plan.schema),
        "names": plan.names,
        "reporter": reporter,
    }


def isolated_arguments(plan: Plan, reporter: Reporter) -> dict[str, Any]:
    """Arguments of the `IsolatedExplainer` of a run."""
    schema = with_book(plan.schema)
    settings = IsolatedSettings(
        decoder=decoder(plan, Reporter(), None),
        replica=plan.settings,
        text_features=plan.prepared.text_features,
        schema=schema,
        names=plan.names,
    )
    return {
        "settings": settings.packed(),
        "schema": schema,
        "seconds": plan.config.runtime.image_timeout,
        "keep_captions": plan.config.store.captions,
        "reporter": reporter,
    }


def decoder(plan: Plan, reporter: Reporter, seconds: float | None) -> Decoder:
    """The decode stage of a run, with a time limit for each image in seconds, or None."""
    config = plan.config
    return Decoder(
        plan.prepared.preprocess,
        Decoding.of_source(config.source),
        dict(config.source.carry),
        config.store.captions,
        reporter,
        seconds,
        store_properties=config.store.properties,
    )


def _in_actors(rows: Dataset, plan: Plan, stage: type, arguments: dict[str, Any]) -> Dataset:
    """A stage of model replicas. A replica that dies is replaced; a batch is tried again once."""
    resources = plan.resources
    return rows.map_batches(
        stage,
        fn_constructor_kwargs=arguments,
        batch_format="pyarrow",
        batch_size=plan.batch_size,
        compute=_pool(resources),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_task_retries=RETRIES,
    )


def _pool(resources: Resources) -> ActorPoolStrategy:
    if resources.min_actors is None:
        return ActorPoolStrategy(size=resources.actors)
    return ActorPoolStrategy(min_size=resources.min_actors, max_size=resources.actors)


def ray_data_settings(plan: Plan) -> AbstractContextManager[None]:
    """Ray Data's settings for a run, restored when the block ends."""
    retried = [*DataContext.get_current().retried_io_errors, *TRANSIENT]
    return data_settings(
        target_max_block_size=plan.block_bytes,
        execution_no_progress_timeout_s=round(plan.no_progress_timeout),
        retried_io_errors=retried,
    )
