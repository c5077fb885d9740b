"""A run on a real cluster of several raylets: submitted, watched, robbed of a node, stopped."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline import open_results
from pipeline.demo.dataset import write_demo
from pipeline.runs.check import check
from pipeline.runs.manifest import run_folder
from tests.data import CLASSES_AND_CUES
from tests.integration.cluster import Cluster, kill, ray_cluster

pytestmark = pytest.mark.starts

IMAGES = 3000
TOKEN = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
_PATIENCE = 300.0


def user_folder(place: Path, images: int) -> Path:
    """A configuration beside data, and a package of the user's that has the name of one of ours."""
    write_demo(str(place / "data"), images, seed=1)
    (place / "pipeline").mkdir()
    (place / "pipeline" / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    settings = {
        "model": {"name": "mini"},
        "source": {"format": "webdataset", "uri": "data", "alias": "demo"},
        "queries": list(CLASSES_AND_CUES),
        "output": "out",
        "runtime": {
            **{"actors": 2, "threads_per_actor": 1, "batch_size": 16},
            **{"rows_per_part": 50, "report_every": 1.0},
        },
    }
    (place / "run.yaml").write_text(yaml.safe_dump(settings))
    return place


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.2)


def committed(output: Path) -> int:
    return len(list((output / "images").glob("*.parquet")))


def whole(output: Path, images: int) -> None:
    """Complete, and one row an image."""
    assert check(run_folder(str(output))).sound
    found = open_results(str(output)).images()
    assert len(found) == images
    assert found.index.is_unique
    assert set(found["status"]) == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "token"])
def test_a_run_on_three_nodes(tmp_path: Path, token: str | None) -> None:
    home = user_folder(tmp_path, IMAGES)
    with ray_cluster(workers=[3, 3], head=2, token=token) as (cluster, workers):
        _no_gpu(cluster, home)
        _loses_a_node(cluster, home, lambda: kill(workers[0]))
        again = cluster.legrad("submit", "run.yaml", cwd=home)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "nothing to do" in again.stdout
        _stops_and_resumes(cluster, home)
        listed = cluster.legrad("jobs", "list", cwd=home).stdout
        assert listed.count("SUCCEEDED") == 3
        assert listed.count("STOPPED") == 1
        assert listed.count("FAILED") == 1


def _no_gpu(cluster: Cluster, home: Path) -> None:
    sets = ("--set", "runtime.gpus_per_actor=1", "--set", "output=gpu")
    done = cluster.legrad("submit", "run.yaml", *sets, cwd=home)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "2 actors x 1 GPUs, the cluster has 0 GPUs" in done.stdout
    assert "loading" not in done.stdout


def _loses_a_node(cluster: Cluster, home: Path, lose: Callable[[], None]) -> None:
    secret = "s3cr3t-value"
    begun = cluster.legrad(
        "submit", "run.yaml", "--no-wait", "--env", "A_SECRET", cwd=home, A_SECRET=secret
    )
    assert begun.returncode == 0, begun.stderr
    job = begun.stderr.split("submitted ")[1].split()[0]
    assert job.startswith("legrad-out-")
    assert job.endswith("-1")
    until(lambda: committed(home / "out") >= 3)
    joined = cluster.legrad("submit", "run.yaml", "--no-wait", cwd=home)
    assert job in joined.stderr
    other = cluster.legrad("submit", "run.yaml", "--set", "model.layers=1", cwd=home)
    assert other.returncode == 2
    assert f"legrad jobs stop {job}" in other.stderr
    lose()
    watched = cluster.legrad("check", "out", "--watch", cwd=home)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert f"{IMAGES:,} rows in" in watched.stderr
    assert "images/s" in watched.stderr
    followed = cluster.legrad("jobs", "logs", "-f", job, cwd=home)
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert f"{IMAGES:,} rows, {IMAGES:,} explained" in followed.stdout
    whole(home / "out", IMAGES)
    headers = {} if cluster.token is None else {"Authorization": f"Bearer {cluster.token}"}
    asked = urllib.request.Request(f"{cluster.address}/api/jobs/", headers=headers)
    with urllib.request.urlopen(asked) as answer:
        jobs = answer.read().decode()
    assert job in jobs
    assert secret not in jobs
    logs = cluster.folder.glob("r/session_latest/logs/**/*")
    assert not [file for file in logs if file.is_file() and secret.encode() in file.read_bytes()]


def _stops_and_resumes(cluster: Cluster, home: Path) -> None:
    sets = ("--set", "output=stopped")
    begun = cluster.legrad("submit", "run.yaml", *sets, "--no-wait", cwd=home)
    job = begun.stderr.split("submitted ")[1].split()[0]
    until(lambda: committed(home / "stopped") >= 3)
    assert "legrad_images" in cluster.metrics()
    assert 'status="ok"' in cluster.metrics()
    assert cluster.legrad("jobs", "stop", job, cwd=home).returncode == 0
    assert cluster.legrad("jobs", "status", job, cwd=home).returncode == 1
    kept = check(run_folder(str(home / "stopped"))).rows
    assert 0 < kept < IMAGES
    again = cluster.legrad("submit", "run.yaml", *sets, cwd=home)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"submitted legrad-\S+-2\b", again.stderr)
    assert "resumed" in again.stdout
    whole(home / "stopped", IMAGES)
    logs = sorted((home / "stopped" / "_run" / "log").glob("*.jsonl"))
    events = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    assert [some[0]["event"] for some in events] == ["start", "start"]
    assert events[1][-1]["outcome"] == "complete"


@pytest.mark.slow
def test_a_cluster_that_wants_a_token(tmp_path: Path) -> None:
    home = user_folder(tmp_path, 60)
    actors = ("--set", "runtime.actors=1")
    with ray_cluster(workers=[], head=5, token=TOKEN) as (cluster, _):
        done = cluster.legrad("submit", "run.yaml", *actors, cwd=home)
        assert done.returncode == 0, done.stdout + done.stderr
        whole(home / "out", 60)
        for token, words in (
            (None, "RAY_AUTH_MODE=token"),
            (TOKEN[::-1], "refuses the token of RAY_AUTH_TOKEN_PATH"),
        ):
            refused = cluster.legrad("submit", "run.yaml", cwd=home, token=token)
            assert refused.returncode == 2, refused.stderr
            assert words in refused.stderr
            assert "Traceback" not in refused.stderr
        there = cluster.legrad("doctor", "run.yaml", "--address", cluster.address, cwd=home)
        assert there.returncode == 0, there.stdout + there.stderr
        for words in ("2 actors x 1 CPUs", "read from 1 node", "written from 1 node", "embedded"):
            assert words in there.stdout
