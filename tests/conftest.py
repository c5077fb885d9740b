"""One Ray session for all tests, and one run whose results many of them read."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads shall not spin

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cluster.session import session
from pipeline.config import RunConfig
from pipeline.demo.dataset import write_demo
from pipeline.flow import run
from pipeline.runs.completeness import Summary
from tests.data import demo_config


@dataclass(frozen=True)
class DemoRun:
    folder: Path
    config: RunConfig
    summary: Summary

    @property
    def output(self) -> str:
        return self.config.output


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    with session():
        yield


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> DemoRun:
    folder = tmp_path_factory.mktemp("demo")
    shards = write_demo(str(folder / "data"), 260, seed=3)
    config = demo_config(shards, folder / "out")
    return DemoRun(folder, config, run(config))
