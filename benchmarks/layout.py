"""How to divide CPU cores among model replicas: ``python -m benchmarks.layout``.

Runs the demo over the same scenes with several combinations of actors and threads.
"""

import argparse
import os
import tempfile
from pathlib import Path

from pipeline.cluster.session import session
from pipeline.config.loading import load_config, packaged_config
from pipeline.demo.dataset import write_demo
from pipeline.flow import run
from pipeline.machine import cores


def main() -> None:
    """Print images per second and total seconds of each layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    count = cores()
    layouts = [(1, count), (count, 1)]
    print(f"{os.cpu_count()} cores, {options.images} scenes, 25 queries")
    with tempfile.TemporaryDirectory() as folder, session():
        shards = write_demo(f"{folder}/data", options.images)
        for actors, threads in layouts:
            settings = [
                f"source.uri=[{', '.join(map(repr, shards))}]",
                f"output={str(Path(folder) / f'{actors}x{threads}')!r}",
                f"runtime.actors={actors}",
                f"runtime.threads_per_actor={threads}",
            ]
            summary = run(load_config(packaged_config("demo.yaml"), settings))
            rate = summary.progress.images_per_second
            print(
                f"{actors} actors x {threads} threads: {rate:6.1f} images/s, "
                f"{summary.seconds:5.1f} s in all, busy {summary.progress.seconds}"
            )


if __name__ == "__main__":
    main()
