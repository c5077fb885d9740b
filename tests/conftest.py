"""What tests share: one Ray session, one S3 server, and one run whose results many of them read.

`make test-quick` leaves out what has the marker ``starts``: tests that start Ray, a server's or any
other process, or a browser, and those of the demo run, which takes a while. Users of the fixtures
below have it from them; other tests say it themselves, and fail where they forget it.
"""

import importlib
import os
import pickle
import shutil
import subprocess

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads shall not spin

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import pytest
import threadpoolctl
from filelock import FileLock

from pipeline.cluster.session import session
from pipeline.config import RunConfig
from pipeline.demo.dataset import write_demo
from pipeline.runs.completeness import Summary
from tests.data import demo_config
from tests.in_process import run
from tests.integration.s3 import s3_server

DEMO_SEED = 3
STARTING_FIXTURES = frozenset(("ray_session", "s3", "browser"))
NOTHING = "nothing"
SLOW_FIXTURES = frozenset(("demo_run",))
"""Their users are no quick tests, and may start nothing."""


@dataclass(frozen=True)
class DemoRun:
    folder: Path
    config: RunConfig
    summary: Summary

    @property
    def output(self) -> str:
        return self.config.output


importlib.import_module("numpy.testing")  # with NumPy 1 its first import runs lscpu, ...
threadpoolctl.threadpool_info()  # ... and this, with some builds of OpenMP, ldconfig
joblib.cpu_count(only_physical_cores=True)  # scikit-learn counts cores with lscpu, once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start something, and put their files first: short ones fill the end."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if STARTING_FIXTURES.intersection(fixtures):
            item.add_marker("starts")
        elif SLOW_FIXTURES.intersection(fixtures):
            item.add_marker(pytest.mark.starts(NOTHING))
    long = {item.path for item in items if item.get_closest_marker("starts")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def _starts_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test start a process only if it has the marker ``starts`` or ``slow``."""
    marks = [mark for name in ("starts", "slow") for mark in request.node.iter_markers(name)]
    if all(NOTHING in mark.args for mark in marks):

        def refused(*arguments: object, **options: object) -> None:
            pytest.fail(f"starts a process, so it needs the marker `starts`: {arguments[1:]}")

        monkeypatch.setattr(subprocess.Popen, "__init__", refused)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    with session():
        yield


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """A run of which each worker of pytest has a copy; the first one explains the images for all.

    The images are shared: no test may change them.
    """
    folder, base = tmp_path_factory.mktemp("demo"), tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo-of-all"
    kept = shared / "summary.pickle"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        shards = write_demo(str(shared / "data"), 260, seed=DEMO_SEED)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(run(demo_config(shards, shared / "out"))))
    shutil.copytree(shared / "out", folder / "out")
    config = demo_config(shards, folder / "out")
    summary: Summary = pickle.loads(kept.read_bytes())
    return DemoRun(folder, config, replace(summary, output=config.output))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Storage options for a real S3 server; each test module makes a bucket of its own."""
    with s3_server(tmp_path_factory.mktemp("s3")) as options:
        yield options
