"""Kill runs and count what is left: ``python -m benchmarks.kill --rounds 20``.

Every round starts a run, sends SIGKILL to its driver, to an actor or to a worker that writes, at a
random moment or at a chosen step of writing a part, and starts it again until it is done. Then
there must be one row an image, and the maps of an undisturbed run: bytes differ by at most one.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import yaml

from benchmarks import failpoints
from pipeline import open_results
from pipeline.config import RunConfig
from pipeline.config.loading import load_config
from pipeline.demo.dataset import write_demo
from pipeline.errors import UsageError
from pipeline.runs.manifest import run_folder
from pipeline.runs.parts import committed_parts
from pipeline.schema import map_column
from tests.data import CLASSES_AND_CUES
from tests.integration.s3 import s3_server

ROOT = Path(__file__).parents[1]
ATTEMPTS = 6
PATIENCE = 600.0
TARGETS = ("driver", "actor", "writer", "driver alone")
"""``driver``: with all that it started; ``driver alone``: its workers live on for a while."""


@dataclass
class Store:
    """Where a benchmark reads and writes: a folder, or a bucket of a real S3 server."""

    uri: str
    scratch: Path
    options: dict[str, Any] = field(default_factory=dict)

    def settings(self, output: str) -> Path:
        """The settings of a run into ``output``; small parts, so that there is much to kill."""
        runtime = {"actors": 1, "threads_per_actor": 1, "batch_size": 25, "rows_per_part": 25}
        source = {"format": "webdataset", "uri": f"{self.uri}/data", "alias": "demo"}
        data = {
            "model": {"name": "mini"},
            "source": source | {"options": self.options},
            "queries": list(CLASSES_AND_CUES),
            "output": f"{self.uri}/{output}",
            "output_options": self.options,
            "runtime": runtime,
        }
        file = self.scratch / f"{output}.yaml"
        file.write_text(yaml.safe_dump(data))
        return file


@contextmanager
def open_store(kind: str, scratch: Path) -> Iterator[Store]:
    """A ``local`` folder, or a bucket on an ``s3`` server that ends with the block."""
    if kind == "local":
        yield Store(str(scratch / "store"), scratch)
        return
    (scratch / "s3").mkdir()
    with s3_server(scratch / "s3") as options:
        store = Store("s3://kill", scratch, options)
        run_folder(store.uri, options).root.fs.mkdir("kill")
        yield store


def start(settings: Path, **variables: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    log = settings.with_suffix(".log").open("ab")
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "jobs", "run", str(settings)]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def finish(settings: Path) -> int:
    """Start the run until it says that it is done; the number of times it took."""
    for attempt in range(1, ATTEMPTS + 1):
        if start(settings).wait(timeout=PATIENCE) == 0:
            return attempt
    raise RuntimeError(f"no end after {ATTEMPTS} starts; see {settings.with_suffix('.log')}")


def kill_at_random(settings: Path, target: str, chance: random.Random) -> bool:
    """Start the run and kill in it; whether there was something to kill."""
    process = start(settings)
    try:
        moment = _begins(process, load_config(settings)) + chance.uniform(0, 3)
        found: list[psutil.Process] = []
        while process.poll() is None and not found:
            time.sleep(0.02)
            if time.monotonic() > moment:
                found = _targets(process.pid, target)
        if found and target == "driver":
            failpoints.kill_run(process.pid)
        elif found and target == "driver alone":
            process.kill()
        elif found:
            failpoints.signal_kill(chance.choice(found))
        return bool(found)
    finally:
        process.wait(timeout=PATIENCE)


def kill_at_point(settings: Path, point: str, victim: str) -> bool:
    """Start the run and kill it at a step of writing its second part; whether that came."""
    folder = Path(tempfile.mkdtemp(dir=settings.parent))
    variables = failpoints.environment(point, victim, folder)
    start(settings, **variables).wait(timeout=PATIENCE)
    return failpoints.fired(variables)


def _begins(process: subprocess.Popen[bytes], config: RunConfig) -> float:
    """When the first part was committed."""
    folder = run_folder(config.output, config.output_options)
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        if committed_parts(folder):
            break
        time.sleep(0.05)
    return time.monotonic()


def _targets(driver: int, kind: str) -> list[psutil.Process]:
    """Processes of a run by what Ray calls them."""
    try:
        process = psutil.Process(driver)
        if kind.startswith("driver"):
            return [process]
        below = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    word = {"actor": "MapWorker", "writer": "Write"}[kind]
    return [child for child in below if _title(child).startswith("ray::") and word in _title(child)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def rows(config: RunConfig) -> pa.Table:
    """What a run holds, by image."""
    return open_results(config.output, config.output_options).dataset.to_table().sort_by("image_id")


def difference(config: RunConfig, wanted: pa.Table) -> int:
    """Largest difference of a byte of any map to those of an undisturbed run.

    Raises:
        RuntimeError: there is not one row an image.
    """
    found = rows(config)
    if found["image_id"].to_pylist() != wanted["image_id"].to_pylist():
        ids = Counter(found["image_id"].to_pylist())
        doubled = sum(count - 1 for count in ids.values())
        lost = len(set(wanted["image_id"].to_pylist()) - set(ids))
        raise RuntimeError(f"{config.output}: {lost} images lost, {doubled} rows doubled")
    worst = 0
    for query in config.queries:
        sides = [_cells(table, map_column(query.name)) for table in (found, wanted)]
        worst = max(worst, int(np.abs(sides[0] - sides[1]).max()))
    return worst


def _cells(table: pa.Table, column: str) -> np.ndarray:
    return np.frombuffer(b"".join(table[column].to_pylist()), np.uint8).astype(np.int16)


@dataclass
class Report:
    """Counts of a benchmark."""

    counts: Counter[str] = field(default_factory=Counter)
    worst: int = 0

    def add(self, what: str, hit: bool, starts: int, worst: int) -> None:
        """One round."""
        self.counts[what] += 1
        self.counts["killed"] += hit
        self.counts["starts after the kill"] += starts
        self.worst = max(self.worst, worst)
        print(
            f"{what:32} {'killed' if hit else 'was done before'}, whole after {starts}", flush=True
        )


def undisturbed(store: Store, images: int) -> pa.Table:
    """The rows of a run that nobody kills; draws the images first."""
    write_demo(f"{store.uri}/data", images, seed=5, options=store.options, per_shard=50)
    settings = store.settings("undisturbed")
    finish(settings)
    return rows(load_config(settings))


def rounds(
    store: Store, plans: Sequence[tuple[str, str]], wanted: pa.Table, chance: random.Random
) -> Report:
    """Kill a run a round, and finish it.

    Args:
        store: holds the images.
        plans: (moment, who is killed): ``random`` and one of `TARGETS`, or a step of writing a part
            and one of `failpoints.VICTIMS`.
        wanted: rows of the undisturbed run.
        chance: generator of the random moments.

    Raises:
        RuntimeError: something was lost, doubled or changed.
    """
    report = Report()
    for number, (moment, victim) in enumerate(plans):
        settings = store.settings(f"round-{number:03d}")
        if moment == "random":
            hit = kill_at_random(settings, victim, chance)
        else:
            hit = kill_at_point(settings, moment, victim)
        starts = finish(settings)
        worst = difference(load_config(settings), wanted)
        if worst > 1:
            raise RuntimeError(f"{settings}: bytes of maps differ by {worst}")
        report.add(f"{moment}, {victim}", hit, starts, worst)
    return report


def main() -> None:
    """Print what became of every round, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--no-points", action="store_true")
    options = parser.parse_args()
    plans = [("random", target) for target in (TARGETS * options.rounds)[: options.rounds]]
    if not options.no_points:
        points = [
            point
            for point in failpoints.POINTS
            if options.store == "local" or point not in failpoints.LOCAL_POINTS
        ]
        plans += [(point, who) for point in points for who in failpoints.VICTIMS]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kill-")))
        store = stack.enter_context(open_store(options.store, scratch))
        try:
            wanted = undisturbed(store, options.images)
            report = rounds(store, plans, wanted, random.Random(options.seed))
        except (RuntimeError, UsageError) as error:
            sys.exit(f"failed: {error}")
    print(f"{dict(report.counts)}, largest difference of a byte: {report.worst}")


if __name__ == "__main__":
    main()
