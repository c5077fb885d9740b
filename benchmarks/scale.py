"""How the pipeline itself scales, model aside: ``python -m benchmarks.scale``.

The real flow (listing, Ray Data, lease, Parquet parts) on real tar shards, with stages
that sleep: so many milliseconds an image of decoding and a batch of explaining, at real sizes. What
is lost against ``actors / batch time`` is lost in the pipeline.
"""

import argparse
import io
import json
import math
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, Dataset

from benchmarks.processes import Usage, sampled
from benchmarks.stand_ins import GRID, SleepingDecoder, SleepingExplainer
from legrad.preprocess import Preprocess
from pipeline import flow
from pipeline.cluster.preflight import store_bytes
from pipeline.cluster.resources import OTHER_CPUS, Resources
from pipeline.cluster.session import RETRIES, _quiet
from pipeline.config import RunConfig
from pipeline.config.loading import validated
from pipeline.plan import Plan
from pipeline.progress.progress import Progress, Reporter
from pipeline.progress.watch import Watch
from pipeline.runs import manifest
from pipeline.runs.ledger import Ledger
from pipeline.runs.manifest import run_folder
from pipeline.runs.model_facts import Prepared
from pipeline.runs.parts import write_part
from pipeline.schema import BOOK, decoded_schema, output_schema, with_book
from pipeline.stages.replica import ReplicaSettings

SIZE, QUERIES = 224, 16
STEADY = (0.2, 0.8)  # of the rows: neither the start nor the tail
ROWS_PER_PART = 10_000
IMAGE_BYTES = 20_000
ROWS_PER_SHARD = 1_000
RESUMED = 64
"""Images that are left to do when a run is continued."""


def main() -> None:
    """Print a line of JSON for every setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--shards", type=int, nargs="+", default=[100])
    parser.add_argument("--images", type=int, help="of a shard; default as many as --seconds take")
    parser.add_argument("--seconds", type=float, default=60, help="that the actors have work for")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batch-ms", type=float, default=200)
    parser.add_argument("--decode-ms", type=float, default=1.0)
    parser.add_argument("--decoders", type=int, default=4, help="CPUs for reading and decoding")
    parser.add_argument("--store-gib", type=float, help="object store; default as preflight asks")
    parser.add_argument("--cpu", action="store_true", help="shares of the cores; costs some itself")
    parser.add_argument("--resume", type=int, nargs="*", default=[], help="committed rows")
    options = parser.parse_args()
    for actors in options.actors:
        for shards in options.shards:
            report(options, actors=actors, shards=shards, **_steady(options, actors, shards))
    for rows in options.resume:
        report(options, **_resume(options, rows))


def report(options: argparse.Namespace, **values: Any) -> None:
    """A line."""
    known = {
        "cores": os.cpu_count(),
        "batch": options.batch,
        "batch_ms": options.batch_ms,
        "decode_ms": options.decode_ms,
    }
    print(json.dumps(known | values), flush=True)


@contextmanager
def stand_ins(options: argparse.Namespace, actors: int) -> Iterator[None]:
    """The flow with sleeping stages, in a Ray session with room for all of them."""
    cpus = actors + options.decoders + OTHER_CPUS
    _quiet()
    ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=round((options.store_gib or 0) * 2**30) or store_bytes(actors),
        include_dashboard=False,
        log_to_driver=False,
    )

    def decode(rows: Dataset, _: Plan, reporter: Reporter) -> Dataset:
        schema = decoded_schema({})
        stage = SleepingDecoder(options.decode_ms / 1000, SIZE, schema, reporter)
        return rows.map_batches(
            stage.__call__, batch_format="pyarrow", batch_size=options.batch, max_retries=RETRIES
        )

    def explain(pixels: Dataset, plan: Plan, reporter: Reporter) -> Dataset:
        arguments = {
            "seconds": options.batch_ms / 1000,
            "schema": with_book(plan.schema),
            "names": plan.names,
            "reporter": reporter,
        }
        return pixels.map_batches(
            SleepingExplainer,
            fn_constructor_kwargs=arguments,
            batch_format="pyarrow",
            batch_size=options.batch,
            compute=ActorPoolStrategy(size=actors),
            num_cpus=1,
            max_task_retries=RETRIES,
        )

    def make_plan(config: RunConfig, folder: Any, source: Any, _: Resources) -> Plan:
        return _plan(options, config, folder, source, actors)

    try:
        with mock.patch.multiple(flow, decode=decode, explain=explain, make_plan=make_plan):
            yield
    finally:
        ray.shutdown()


def _plan(
    options: argparse.Namespace, config: RunConfig, folder: Any, source: Any, actors: int
) -> Plan:
    names = [query.name for query in config.queries]
    features = np.zeros((len(names), 512), np.float32)
    rate = options.batch / (options.batch_ms / 1000)
    prepared = Prepared(
        grid=GRID,
        layers=2,
        digest="0" * 64,
        definition=None,
        tokenizer=None,
        logit={"scale": None, "bias": None},
        preprocess=Preprocess((SIZE, SIZE)),
        text_features=features,
        query_digests={},
        warnings=(),
        images_per_second=rate,
        batch_size=options.batch,
    )
    metadata = manifest.file_metadata(config, prepared)
    schema = output_schema({}, names, embeddings=True, metadata=metadata)
    settings = ReplicaSettings(config.model, "cpu", 1, options.batch)
    rows = max(options.batch, min(ROWS_PER_PART, round(rate * actors * 10)))
    replicas = Resources(actors, 0, 1)
    return Plan(config, folder, source, prepared, replicas, settings, schema, rows)


def _config(data: Path, output: Path) -> RunConfig:
    queries = [{"name": f"q{number}", "role": "cue"} for number in range(QUERIES)]
    return validated(
        RunConfig,
        {
            "model": {"name": "mini"},
            "source": {"format": "webdataset", "uri": str(data), "alias": "demo"},
            "queries": queries,
            "output": str(output),
            "runtime": {"actors": 1, "threads_per_actor": 1},
        },
        "benchmark",
    )


def _write_shards(place: Path, shards: int, images: int) -> None:
    place.mkdir()
    noise = np.random.default_rng(0).bytes(IMAGE_BYTES)
    for shard in range(shards):
        with tarfile.open(place / f"{shard:06d}.tar", "w") as tar:
            for image in range(images):
                info = tarfile.TarInfo(f"{image:06d}.jpg")
                info.size = len(noise)
                tar.addfile(info, io.BytesIO(noise))


def _whole(images: float, batch: int) -> int:
    """Images of a shard in whole batches: what half-filled ones cost depends on the data set."""
    return batch * math.ceil(images / batch)


def _steady(options: argparse.Namespace, actors: int, shards: int) -> dict[str, Any]:
    """Rate in the middle of a run, against what the actors could do."""
    seen: list[tuple[float, int, int, dict[str, float]]] = []
    stages: list[tuple[float, str]] = []
    driver = psutil.Process()

    def look(progress: Progress) -> None:
        now = time.monotonic()
        seen.append((now, progress.rows, driver.memory_info().rss, dict(usage.cpu)))

    watch = Watch(lambda text: stages.append((time.monotonic(), text)), look, seconds=0.5)
    could = actors * options.batch / (options.batch_ms / 1000)
    images = options.images or _whole(could * options.seconds / shards, options.batch)
    with tempfile.TemporaryDirectory() as folder:
        _write_shards(Path(folder) / "in", shards, images)
        usages = sampled() if options.cpu else nullcontext(Usage())
        with stand_ins(options, actors), usages as usage:
            begun = time.monotonic()
            done = flow.run(_config(Path(folder) / "in", Path(folder) / "out"), watch)
    total = shards * images
    middle = [look for look in seen if STEADY[0] <= look[1] / total <= STEADY[1]]
    found: dict[str, Any] = {
        "images": total,
        "seconds": round(done.seconds, 1),
        "plan_seconds": round(next(t for t, s in stages if s.startswith("explaining")) - begun, 2),
        "driver_MiB": [round(rss / 2**20) for rss in (seen[0][2], seen[-1][2])] if seen else None,
    }
    if len(middle) > 1:
        (start, first, _, before), (end, last, _, after) = middle[0], middle[-1]
        rate = (last - first) / (end - start)
        found["images_per_second"] = round(rate, 1)
        found["batches_per_second"] = round(rate / options.batch, 1)
        found["efficiency"] = round(rate / could, 3)
        spent = {name: cpu - before.get(name, 0.0) for name, cpu in after.items()}
        busy = sorted(spent.items(), key=lambda one: -one[1])[:8]
        room = (end - start) * (os.cpu_count() or 1)
        found |= {"cpu": {name: round(cpu / room, 3) for name, cpu in busy}} if busy else {}
        found["output_MB_per_second"] = round(rate * done.bytes / total / 1e6, 2)
    return found


def _resume(options: argparse.Namespace, rows: int) -> dict[str, Any]:
    """Seconds to continue a run with so many committed rows, and little left to do.

    The index is removed, so that every part is read; ``indexed_seconds`` is with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "in", Path(folder) / "out"
        _write_shards(data, 1, RESUMED)
        with stand_ins(options, 1):
            flow.run(_config(data, output))
            base, _ = _again(data, output, RESUMED)
            _commit(output, rows)
            (output / "_run" / "index.parquet").unlink()
            seconds, driver = _again(data, output, RESUMED)
            indexed, _ = _again(data, output, RESUMED)
            return {
                "committed": rows,
                "base_seconds": base,
                "seconds": seconds,
                "indexed_seconds": indexed,
                "driver_MiB": driver,
            }


def _again(data: Path, output: Path, images: int) -> tuple[float, int]:
    """Undo the one shard, and time the run that does it again; MiB of the driver at its end.

    Raises:
        RuntimeError: it did not do that.
    """
    folder = run_folder(str(output))
    for name, record in Ledger(folder).refresh().records.items():
        if record.row_ranges["shard"][0].as_py() == "000000.tar":
            folder.images.child(name).delete()
    folder.complete.delete()
    start = time.monotonic()
    done = flow.run(_config(data, output)).progress.rows
    if done != images:
        raise RuntimeError(f"{done} rows were done again, expected {images}")
    seconds = round(time.monotonic() - start, 1)
    return seconds, round(psutil.Process().memory_info().rss / 2**20)


def _commit(output: Path, rows: int) -> None:
    """Parts of shards that are no longer there, `ROWS_PER_SHARD` rows each."""
    folder = run_folder(str(output))
    schema = with_book(pq.read_schema(next((output / "images").glob("*.parquet"))))
    for first in range(0, rows, ROWS_PER_PART):
        count = min(ROWS_PER_PART, rows - first)
        numbers = np.arange(first, first + count)
        shards = [f"gone-{number // ROWS_PER_SHARD:05d}.tar" for number in numbers]
        places = [
            {"number": n % ROWS_PER_SHARD, "version": "mtime:0", "bytes": 1, "end": None}
            for n in numbers.tolist()
        ]
        columns = {field.name: pa.nulls(count, field.type) for field in schema}
        columns |= {
            "image_id": pa.array(
                [f"demo/{s}/{n:09d}" for s, n in zip(shards, numbers, strict=True)]
            ),
            "shard": pa.array(shards),
            "status": pa.array(["ok"] * count),
            BOOK: pa.array(places, schema.field(BOOK).type),
        }
        write_part(folder.images, pa.table([columns[n] for n in schema.names], schema=schema))


if __name__ == "__main__":
    main()
