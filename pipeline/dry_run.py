"""Preview a run: what it would read, compute and write; no model is loaded, nothing written."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from legrad.models.definition import define
from legrad.preprocess import Preprocess
from pipeline.cluster.resources import Resources, plan_resources
from pipeline.cluster.session import local_nodes
from pipeline.config import AnyModelConfig, ClassifierConfig, RunConfig
from pipeline.costs import Costs, estimate, forward_flops, passes
from pipeline.errors import UsageError
from pipeline.schema import Status
from pipeline.sources.choice import wanted_ids
from pipeline.sources.datasource import ImageSource, open_source, read_rows
from pipeline.sources.input_rows import Row
from pipeline.sources.label_checks import examined_label_notes, first_label_notes, table_notes
from pipeline.stages.decode import Decoding, decode

SAMPLE_ROWS = 16
_TAR_ROW = 2 * 512 + 256  # bytes of headers and padding of a sample's image and json
_BYTES_PER_CELL = 0.95  # uint8 heat of real-size models under zstd
_BYTES_PER_MAP = 4  # its maximum, a float32
_BYTES_PER_SCORE = 4
_ROWS_PER_PART = 3_000  # what 200 images per second amount to in `pipeline.plan.SECONDS_PER_PART`
_BYTES_PER_ROW = 160  # identity, sizes and digests


@dataclass(frozen=True)
class Sampled:
    """One of the first rows, decoded.

    Attributes:
        image_id, label, status, error: as in the output.
        size: width and height in pixels; None if unknown.
        bytes: size of the encoded image.
        seconds: time to decode it.
        offset: where its bytes begin in the shard; None if unknown.
    """

    image_id: str
    label: str | None
    status: str
    error: str | None
    size: tuple[int, int] | None
    bytes: int
    seconds: float = 0.0
    offset: int | None = None


@dataclass(frozen=True)
class Preview:
    """What a run would read, compute and write.

    Attributes:
        shards: number of read tasks.
        rows: number of rows; for tars an estimate from the sizes of the first rows.
        exact: whether ``rows`` is exact.
        bytes_read: size of the input.
        bytes_written: estimated size of the output.
        maps: largest number of heatmaps in a row.
        resources: CPUs and GPUs of the model replicas on this machine; None on a cluster.
        costs: estimated costs of the run.
        first: the first rows, decoded.
        notes: what the user should know about the source and the model.
        columns: names of the columns that are read, by what they hold.
    """

    shards: int
    rows: int
    exact: bool
    bytes_read: int
    bytes_written: int
    maps: int
    resources: Resources | None
    costs: Costs
    first: tuple[Sampled, ...]
    notes: tuple[str, ...]
    columns: Mapping[str, str]


def preview(config: RunConfig, *, on_cluster: bool) -> Preview:
    """Preview a run from its settings, its source and the first rows.

    Args:
        config: settings of the run.
        on_cluster: whether it would run on a cluster and not on this machine.

    Raises:
        UsageError: the source or this machine does not fit the settings, or the weights do not
            exist.
    """
    model_notes = _model_notes(config.model)
    source = open_source(config.source)
    read = list(islice(read_rows(source.source, source.units[0]), SAMPLE_ROWS))
    first = tuple(_sampled(config, read))
    rows, exact = _rows(source, first)
    return Preview(
        shards=len(source.units),
        rows=rows,
        exact=exact,
        bytes_read=source.bytes_total,
        bytes_written=rows * _row_bytes(config),
        costs=_costs(config, source, rows, first),
        maps=len(config.map_columns),
        resources=None if on_cluster else plan_resources(config.runtime, local_nodes()),
        first=first,
        notes=(
            *model_notes,
            *source.facts.notes,
            *table_notes(source, read),
            *examined_label_notes(source, config.queries),
            *first_label_notes(config.store.maps.mode, read),
        ),
        columns=source.facts.columns,
    )


def _model_notes(model: AnyModelConfig) -> tuple[str, ...]:
    """What is assumed about the weights; refuses an unknown tag, without loading the model."""
    if isinstance(model, ClassifierConfig):
        return ()
    from legrad.models.published import as_published  # loads torch

    try:
        return as_published(define(model.name), model.pretrained, model.tag)[1]
    except ValueError as error:
        raise UsageError(f"model: {error}") from error


def _sampled(config: RunConfig, rows: Sequence[Row]) -> list[Sampled]:
    height, width = config.model.image_size or config.model.architecture.image_size
    preprocess = Preprocess((height, width), config.model.resize or "squash")
    samples = []
    for row in rows:
        data: bytes | None = row.get("bytes")
        status, error, shape, seconds = str(row["status"]), row.get("error"), None, 0.0
        if data is not None and status == Status.OK:
            start = time.perf_counter()
            image = decode(data, preprocess, Decoding.of_source(config.source))
            seconds = time.perf_counter() - start
            status, error = str(image.status), image.error
            shape = (image.width, image.height) if image.width and image.height else None
        label, size, offset = row.get("label"), len(data or b""), row.get("source_offset")
        samples.append(Sampled(row["image_id"], label, status, error, shape, size, seconds, offset))
    return samples


def _rows(source: ImageSource, first: tuple[Sampled, ...]) -> tuple[int, bool]:
    config, units = source.source, source.units
    if config.format != "webdataset":
        total, wanted = sum(unit.rows or 0 for unit in units), wanted_ids(config)
        if wanted is None or config.format == "folder":  # whose files were chosen one by one
            return total, True
        return min(total, len(wanted.ids)), False
    if config.sample is not None or config.limit is not None:
        return min(count for count in (config.sample, config.limit) if count is not None), False
    if len(first) < SAMPLE_ROWS and len(units) == 1:
        return len(first), True
    return round(source.bytes_total / max(1.0, _tar_row_bytes(first))), False


def _tar_row_bytes(first: Sequence[Sampled]) -> float:
    """Mean bytes of a sample: the distance of its images, or in a compressed tar their sizes."""
    offsets = [row.offset for row in first if row.offset is not None]
    if len(offsets) > 1:
        return (offsets[-1] - offsets[0]) / (len(offsets) - 1)
    return sum(row.bytes + _TAR_ROW for row in first) / max(1, len(first))


def _costs(config: RunConfig, source: ImageSource, rows: int, first: Sequence[Sampled]) -> Costs:
    arch = config.model.architecture
    size = config.model.image_size or arch.image_size
    per_image = forward_flops(arch, (size[0], size[1]))
    per_image *= passes(arch, len(config.map_columns), config.model.layers)
    timed = [row.seconds for row in first if row.status == Status.OK][1:]  # the first one warms up
    part = config.runtime.rows_per_part
    return estimate(
        per_image,
        rows,
        sum(timed) / len(timed) if timed else None,
        [file.size for unit in source.units for file in unit.files],
        math.ceil(rows / (_ROWS_PER_PART if part == "auto" else part)),
    )


def _row_bytes(config: RunConfig) -> int:
    arch = config.model.architecture
    size = config.model.image_size or arch.image_size
    cells = (size[0] // arch.patch_size[0]) * (size[1] // arch.patch_size[1])
    map_bytes = cells * _BYTES_PER_CELL + _BYTES_PER_MAP
    embedding = 2 * arch.embed_dim if config.store.embeddings else 0
    scores = len(config.queries) * _BYTES_PER_SCORE
    return round(len(config.map_columns) * map_bytes + scores + embedding + _BYTES_PER_ROW)
