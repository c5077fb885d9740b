"""The same work as a run, in a plain loop in one process and without Ray.

``python -m benchmarks.bare SPEC PART PARTS`` processes every PARTS-th shard of the specification
that `benchmarks.pipeline` writes, and prints images, CPU seconds by stage and peak memory as JSON.
"""

import hashlib
import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from legrad import LeGrad
from legrad.heatmaps.codec import encode_maps
from pipeline.config import RunConfig
from pipeline.sources.webdataset import read_shard
from pipeline.stages.decode import Decoding, decode
from pipeline.stages.properties import measure
from pipeline.stages.replica import ReplicaSettings


class CpuClock:
    """CPU seconds of this process (all threads) by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the CPU time spent inside to a stage."""
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start


def work(spec: dict[str, Any], part: int, parts: int) -> dict[str, Any]:
    """Do all that a run does to a share of the shards, but discard the results."""
    config = RunConfig.model_validate(spec["config"])
    clock = CpuClock()
    with clock.stage("load"):
        threads, batch_size = spec["threads"], spec["batch_size"]
        model = ReplicaSettings(config.model, "cpu", threads, batch_size).load()
        legrad = LeGrad(model, config.model.layers)
        features = torch.from_numpy(np.load(spec["features"]))
    height, width = model.preprocess.size
    decoding = Decoding.of_source(config.source)
    images = 0
    for shard in config.source.uris[part::parts]:
        with Path(shard).open("rb") as stream:
            rows = read_shard(stream, shard, "", config.source)
            while True:
                with clock.stage("read"):
                    batch = [row["bytes"] for row in islice(rows, batch_size)]
                if not batch:
                    break
                with clock.stage("decode"):
                    for data in batch:
                        hashlib.sha256(data).hexdigest()
                    sampled = config.store.properties
                    found = [
                        decode(data, model.preprocess, decoding, sample=sampled) for data in batch
                    ]
                    measure([image.sample for image in found if image.sample is not None])
                    pixels = bytearray(b"".join(image.pixels or b"" for image in found))
                with clock.stage("explain"):
                    tensor = torch.frombuffer(pixels, dtype=torch.uint8)
                    explained = legrad.explain(tensor.view(-1, 3, height, width), features)
                    maps = explained.maps.float().numpy()
                with clock.stage("encode"):
                    encode_maps(maps)
                images += len(batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"images": images, "cpu": dict(clock.seconds), "peak": peak}


if __name__ == "__main__":
    specification = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(work(specification, int(sys.argv[2]), int(sys.argv[3]))))
