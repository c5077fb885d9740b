"""The flow beside a bare program that does the same: ``python -m benchmarks.pipeline``.

Both read, decode, explain and encode the same demo shards on the same cores; the flow also writes
and commits. Ray is up already; each side starts its processes and loads its model once. The bare
program runs as one process with all cores and as one process a core, and the faster one counts.
Rounds are interleaved. ``--memory`` compares the memory of 10 and of 1,000 shards instead.
"""

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
from safetensors.torch import save_file

from benchmarks.processes import Usage, sampled
from legrad.queries.query import encode_queries
from pipeline.cluster.session import session
from pipeline.config import RunConfig
from pipeline.config.loading import load_config, packaged_config
from pipeline.demo.dataset import write_demo
from pipeline.flow import run
from pipeline.machine import cores
from pipeline.progress.watch import Watch
from pipeline.stages.replica import ReplicaSettings


def configuration(folder: Path, shards: list[str], model: str, *settings: str) -> RunConfig:
    """The demo's settings on these shards; another model than mini gets random weights."""
    uris = "[" + ", ".join(map(repr, shards)) + "]"
    chosen = [f"source.uri={uris}", f"model.name={model}", *settings]
    if model != "mini":
        weights = folder / f"{model}.safetensors"
        if not weights.exists():
            module = open_clip.create_model(model, pretrained=None)
            state = {name: t.contiguous().clone() for name, t in module.state_dict().items()}
            save_file(state, weights)
        chosen.append(f"model.pretrained={str(weights)!r}")
    return load_config(packaged_config("demo.yaml"), chosen)


def flow(config: RunConfig, output: Path) -> tuple[float, Usage]:
    """Images a second from the first stage to the completion marker, and what it took."""
    begun: list[float] = []

    def stage(text: str) -> None:
        if text.startswith("explaining"):
            begun.append(time.perf_counter())

    with sampled() as usage:
        summary = run(config.model_copy(update={"output": str(output)}), Watch(stage=stage))
        seconds = time.perf_counter() - begun[0]
    shutil.rmtree(output)
    if summary.failures:
        raise RuntimeError(f"the flow had failures: {summary.failures}")
    return summary.rows / seconds, usage


def bare(
    folder: Path, config: RunConfig, processes: int, threads: int
) -> tuple[float, dict[str, float]]:
    """Images a second of the bare program, and its CPU seconds by stage."""
    data = config.model_dump(mode="json", exclude_defaults=True)
    spec = {
        "config": data,
        "threads": threads,
        "batch_size": config.runtime.batch_size,
        "features": str(folder / "features.npy"),
    }
    file = folder / "spec.json"
    file.write_text(json.dumps(spec))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bare", str(file), str(part), str(processes)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for part in range(processes)
    ]
    answers = [json.loads(process.communicate()[0]) for process in running]
    seconds = time.perf_counter() - start
    cpu: Counter[str] = Counter()
    for answer in answers:
        cpu.update(answer["cpu"])
    return sum(answer["images"] for answer in answers) / seconds, dict(cpu)


def save_features(folder: Path, config: RunConfig) -> None:
    """The queries' features, which the flow encodes before its first stage."""
    model = ReplicaSettings(config.model, "cpu", cores(), 1).load_reader_of_texts()
    np.save(folder / "features.npy", encode_queries(model, config.queries).float().numpy())


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Print both sides and their ratio."""
    shards = write_demo(f"{folder}/data", options.images)
    config = configuration(folder, shards, options.model)
    save_features(folder, config)
    count = cores()
    layouts = sorted({(1, count), (count, 1)})
    rates: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, dict[str, float]] = {}
    for number in range(options.rounds):
        rate, usage = flow(config, folder / f"out{number}")
        rates["flow"].append(rate)
        cpu["flow"] = dict(usage.cpu)
        print(f"round {number + 1}: flow {rate:.2f}", end="", flush=True)
        for processes, threads in layouts:
            name = f"bare {processes} x {threads}"
            rate, cpu[name] = bare(folder, config, processes, threads)
            rates[name].append(rate)
            print(f", {name} {rate:.2f}", end="", flush=True)
        print(" images/s")
    report(rates, cpu, options.images)


def report(rates: dict[str, list[float]], cpu: dict[str, dict[str, float]], images: int) -> None:
    """Medians, ratio, and where the CPU seconds of the last round went."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = max((name for name in medians if name != "flow"), key=lambda name: medians[name])
    for name, median in medians.items():
        print(f"{name:12} {median:8.2f} images/s (median of {len(rates[name])})")
    print(f"flow / {best}: {medians['flow'] / medians[best]:.2f}")
    for name in ("flow", best):
        print(f"CPU seconds of {name}, {images} images: {sum(cpu[name].values()):.1f}")
        for stage, seconds in sorted(cpu[name].items(), key=lambda item: -item[1]):
            if seconds >= 0.05:
                print(f"  {seconds:8.1f}  {stage}")


def memory(folder: Path, options: argparse.Namespace) -> None:
    """Print peak memory by number of shards."""
    whole = write_demo(f"{folder}/data", options.images)
    print("shards  driver MiB  largest worker  all workers  images/s")
    for count in options.shards:
        shards = cut(whole, folder / f"cut{count}", count, options.images)
        rate, usage = flow(configuration(folder, shards, options.model), folder / "out")
        driver, worker, workers = (b / 2**20 for b in (usage.driver, usage.worker, usage.workers))
        print(f"{count:6d} {driver:11.0f} {worker:15.0f} {workers:12.0f} {rate:9.2f}")


def cut(shards: list[str], folder: Path, count: int, images: int) -> list[str]:
    """The same samples in another number of shards."""
    folder.mkdir()
    paths = [folder / f"{number:05d}.tar" for number in range(count)]
    members = _members(shards)
    ahead = next(members, None)
    for number, path in enumerate(paths):
        last = (number + 1) * images // count
        with tarfile.open(path, "w") as tar:
            while ahead is not None and ahead[0] < last:
                tar.addfile(ahead[1], io.BytesIO(ahead[2]))
                ahead = next(members, None)
    return [str(path) for path in paths]


def _members(shards: list[str]) -> Iterator[tuple[int, tarfile.TarInfo, bytes]]:
    """Members in their order, each with the number of its sample."""
    keys: dict[str, int] = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                data = b"" if stream is None else stream.read()
                yield keys.setdefault(member.name.split(".")[0], len(keys)), member, data


def main() -> None:
    """Parse arguments and run one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--model", default="mini", help="mini, or ViT-B-32 with random weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--folder", help="for shards, weights and outputs; default: temporary")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {cores()} cores, {options.model}")
    if options.folder:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as place, session():
        task: Any = memory if options.memory else compare
        task(Path(place), options)


if __name__ == "__main__":
    main()
