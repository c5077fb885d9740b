"""Images that kill whoever touches them: rows with a status, and nothing else lost."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from PIL import Image

from legrad import load_model
from pipeline import open_results
from pipeline.config import ModelConfig
from pipeline.errors import RunError
from pipeline.progress.progress import Reporter
from pipeline.schema import Status, output_schema
from pipeline.sources.input_rows import blocks, make_row
from pipeline.stages.decode import Decoder, Decoding
from pipeline.stages.isolated import IsolatedExplainer, IsolatedProcess, IsolatedSettings
from pipeline.stages.replica import ReplicaSettings
from tests.data import encoded, jpeg, mini_config, samples, tar_bytes

pytestmark = pytest.mark.starts

KILLERS = Path(__file__).with_name("killers")
MAGENTA = encoded(Image.new("RGB", (40, 30), (255, 0, 255)), "PNG")
DEADLY = {"0.tar": b"KILLER", "1.tar": MAGENTA, "2.tar": None}
EACH = 40


@pytest.fixture
def deadly_path(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{KILLERS}{os.pathsep}{path}")


def write_shards(folder: Path) -> None:
    """Two killers in one batch of a shard: one shard kills decoders, one the model, one nobody."""
    folder.mkdir()
    for number, (name, killer) in enumerate(DEADLY.items()):
        members = samples([f"k{n:02d}" for n in range(EACH)], 100 * number)
        if killer is not None:
            members[10:10] = [("bad1.png", killer)]
            members[15:15] = [("bad2.png", killer)]
        (folder / name).write_bytes(tar_bytes(members))


@pytest.mark.parametrize("isolate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_survives_killers(deadly_path: None, tmp_path: Path, isolate: bool) -> None:
    """In a second pass, or in processes that may die from the start."""
    write_shards(tmp_path / "in")
    runtime = {"actors": 1, "threads_per_actor": 1, "batch_size": 16, "isolate": isolate}
    source = {"format": "webdataset", "uri": str(tmp_path / "in"), "alias": "demo"}
    config = mini_config(source, tmp_path / "out", runtime=runtime)
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True))
    (tmp_path / "run.yaml").write_text(text)
    command = [sys.executable, "-m", "jobs", "run", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert "4 worker_killed" in done.stdout.decode()
    assert ("in isolated processes" in done.stderr.decode()) is not isolate
    assert "Set ray log level" not in done.stderr.decode()
    images = open_results(str(tmp_path / "out")).images()
    assert images.index.is_unique
    assert Counter(images["status"]) == {"ok": 3 * EACH, "worker_killed": 4}
    dead = images[images["status"] == "worker_killed"].sort_index()
    assert list(dead.index) == [f"demo/{n}.tar/bad{m}" for n in (0, 1) for m in (1, 2)]
    assert dead["error"].str.extract(r"(SIG\w+)")[0].tolist() == ["SIGKILL"] * 2 + ["SIGSEGV"] * 2
    assert dead["sha256"].notna().all()


@pytest.fixture(scope="module")
def settings() -> IsolatedSettings:
    model = load_model("mini", device="cpu")
    schema = output_schema({}, ["fish"], embeddings=True, metadata={})
    decoder = Decoder(model.preprocess, Decoding(10**6), {}, True, Reporter())
    replica = ReplicaSettings(ModelConfig(name="mini"), "cpu", 1, 8)
    features = model.encode_text(["a fish"]).numpy()
    return IsolatedSettings(decoder, replica, features, schema, ["fish"])


@pytest.fixture(scope="module")
def isolated(settings: IsolatedSettings) -> Iterator[IsolatedExplainer]:
    stage = IsolatedExplainer(settings.packed(), settings.schema, 120.0, True, Reporter())
    yield stage
    if stage.process is not None:
        stage.process.stop()


def batch(*images: bytes | None) -> pa.Table:
    rows = [
        make_row(f"i{n}", "0.tar", f"i{n}", bytes=data, caption="c")
        if data is not None
        else make_row(f"i{n}", "0.tar", f"i{n}", status=Status.NO_IMAGE, error="none")
        for n, data in enumerate(images)
    ]
    (table,) = blocks(rows, {})
    return table


def test_what_does_not_kill_is_explained_as_ever(
    isolated: IsolatedExplainer, settings: IsolatedSettings
) -> None:
    from pipeline.stages.explain import Explainer

    rows = batch(jpeg(1), None, b"rubbish", jpeg(2))
    found = isolated(rows)
    ours = Explainer(
        settings.replica, settings.text_features, settings.schema, settings.names, Reporter()
    )
    assert found.schema == settings.schema
    assert found.equals(ours(settings.decoder(rows)))
    assert found["status"].to_pylist() == ["ok", "no_image", "not_an_image", "ok"]


@pytest.mark.slow
def test_a_hang_ends(deadly_path: None, settings: IsolatedSettings) -> None:
    stage = IsolatedExplainer(settings.packed(), settings.schema, 15.0, False, Reporter())
    found = stage(batch(jpeg(1), b"HANGER")).to_pylist()
    assert [row["status"] for row in found] == ["ok", "worker_killed"]
    assert "no answer within 15 s" in found[1]["error"]
    assert found[1]["caption"] is None
    assert found[1]["score__fish"] is None
    assert stage.process is None


@pytest.mark.parametrize("pause", [0.0, 2.0])
def test_a_process_that_dies_between_two_batches(isolated: IsolatedExplainer, pause: float) -> None:
    assert isolated(batch(jpeg(1)))["status"].to_pylist() == ["ok"]
    assert isolated.process is not None
    os.kill(isolated.process.pool.schedule(os.getpid).result(), signal.SIGKILL)
    time.sleep(pause)
    found = isolated(batch(jpeg(1), jpeg(2)))["status"].to_pylist()
    assert found == ["ok", "ok"]  # as a batch it was blamed, each alone it was not


def test_an_error_is_no_killer(settings: IsolatedSettings) -> None:
    broken = IsolatedSettings(
        settings.decoder,
        settings.replica,
        settings.text_features[:, :3],
        settings.schema,
        settings.names,
    )
    process = IsolatedProcess(broken.packed())
    try:
        with pytest.raises(RunError, match="ValueError: directions"):
            process.explain(batch(jpeg(1)), 60)
    finally:
        process.stop()
    with pytest.raises(RunError, match="cannot be loaded"):
        IsolatedProcess(b"no pickle")
