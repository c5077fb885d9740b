"""A run whose storage fails all the time."""

import re
from pathlib import Path
from typing import Any

import pytest
import s3fs

from pipeline import open_results
from pipeline.flow import run
from tests.data import mini_config, samples, tar_bytes
from tests.integration.faulty_proxy import KINDS, Faults, faulty_proxy

IMAGES, EACH = 80, 20
PLACES = {
    "shard": r"GET /flaky/in/.*tar",
    "part": r"PUT /flaky/out/images/.*parquet",
}
"""Requests of which the first one fails in any case."""


@pytest.fixture(scope="module")
def options(s3: dict[str, Any]) -> dict[str, Any]:
    s3fs.S3FileSystem(**s3).mkdir("flaky")
    return s3


def through(options: dict[str, Any], address: str) -> dict[str, Any]:
    """The same storage by way of the proxy, with little patience for what stalls."""
    client = options["client_kwargs"] | {"endpoint_url": f"http://{address}"}
    return options | {"client_kwargs": client, "config_kwargs": {"read_timeout": 2}}


def is_named(method: str, path: str) -> bool:
    return any(re.match(pattern, f"{method} {path}") for pattern in PLACES.values())


def test_a_fifth_of_all_requests_fails(
    ray_session: None, options: dict[str, Any], tmp_path: Path
) -> None:
    fs = s3fs.S3FileSystem(**options)
    members = samples([f"k{n:03d}" for n in range(IMAGES)])
    for number in range(IMAGES // EACH):
        part = members[2 * EACH * number : 2 * EACH * (number + 1)]
        fs.pipe_file(f"flaky/in/{number}.tar", tar_bytes(part))
    runtime = {"actors": 1, "threads_per_actor": 1, "rows_per_part": EACH, "batch_size": EACH}
    faults = Faults(0.2, seed=1, first=is_named)
    upstream = options["client_kwargs"]["endpoint_url"].removeprefix("http://")
    with faulty_proxy(upstream, faults) as address:
        faulty = through(options, address)
        config = mini_config(
            {"format": "webdataset", "uri": "s3://flaky/in", "alias": "x", "options": faulty},
            "s3://flaky/out",
            output_options=faulty,
            runtime=runtime,
        )
        summary = run(config)
    assert summary.statuses == {"ok": IMAGES}
    results = open_results("s3://flaky/out", options)
    images = results.images()
    assert sorted(images.index) == [f"x/{n // EACH}.tar/k{n:03d}" for n in range(IMAGES)]
    ids, maps = results.maps("watermark")
    assert len(set(ids)) == len(maps) == IMAGES
    assert 0.15 < faults.injected.total() / faults.requests.total() < 0.45
    assert {kind for _, _, kind in faults.injected} == set(KINDS)
    for place, pattern in PLACES.items():
        faulty_ones = {
            (method, path)
            for method, path, _ in faults.injected
            if re.match(pattern, f"{method} {path}")
        }
        assert faulty_ones, place
        assert all(faults.requests[request] > 1 for request in faulty_ones), place
