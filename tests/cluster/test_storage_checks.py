"""Faults of the source and the output are reported before the model loads."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.preflight import check_output, check_source
from pipeline.config import SourceConfig
from pipeline.errors import UsageError
from pipeline.flow import run
from pipeline.progress.watch import Watch
from pipeline.runs.manifest import run_folder
from pipeline.sources.datasource import open_source
from tests.data import jpeg, mini_config, samples, tar_bytes


def probe(folder: Path, kind: str = "webdataset", **settings: Any) -> tuple[str, ...]:
    return check_source(open_source(SourceConfig(format=kind, uri=(str(folder),), **settings)))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "0.tar").write_bytes(tar_bytes(samples(["a", "b", "c"])))
    return folder


def test_a_source_that_fits(shards: Path) -> None:
    assert probe(shards, label_field="label", carry=["size"], image_field="jpg") == ()
    (note,) = probe(shards, carry=["size", "colour"])
    assert "'colour'" in note


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_field": "webp"}, "no field 'webp'.*jpg, json"),
        ({"label_field": "klass"}, "label_field: .* 'klass'"),
    ],
)
def test_wrong_fields(shards: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        probe(shards, **settings)


def test_shards_without_images(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_bytes([("a.json", b"{}"), ("b.npy", b"")]))
    with pytest.raises(UsageError, match="hold no image; fields of the sample: json"):
        probe(tmp_path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"nothing can be read: FileNotFoundError"):
        probe(tmp_path, "folder")
    (tmp_path / "c.jpg").write_bytes(jpeg(1))
    assert probe(tmp_path, "folder") == ()


def test_an_output_that_takes_nothing(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    config = mini_config({"format": "webdataset", "uri": str(shards)}, tmp_path / "file" / "out")
    stages: list[str] = []
    with pytest.raises(UsageError, match="file"):
        run(config, Watch(stage=stages.append))
    assert len(stages) == 1  # no model was loaded
    check_output(run_folder(str(tmp_path / "out")))
    assert list((tmp_path / "out" / "_run").iterdir()) == []


SMALL_DISK = "mount -t tmpfs -o size={size} tmpfs {folder} && {command}"


def on_a_small_disk(folder: Path, size: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command while a folder is a file system of its own of some size."""
    folder.mkdir(exist_ok=True)
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*inside, f"mount -t tmpfs tmpfs {folder}"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small disk")
    script = SMALL_DISK.format(size=size, folder=folder, command=command)
    return subprocess.run([*inside, script], capture_output=True, text=True, check=False)


@pytest.mark.starts
def test_a_full_disk_is_known_before(tmp_path: Path) -> None:
    small = tmp_path / "small"
    code = (
        "from pipeline.runs.manifest import run_folder; "
        "from pipeline.cluster.preflight import check_output; "
        f"check_output(run_folder('{small}/out'))"
    )
    done = on_a_small_disk(small, "32k", f'{sys.executable} -c "{code}"; ls -A {small}/out/_run')
    assert "UsageError" in done.stderr
    assert f"UsageError: {small}/out: the disk is full" in done.stderr
    assert done.stdout.strip() == ""


def test_a_place_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UsageError) as caught:
        check_output(run_folder(f"{tmp_path}/out"))
    assert str(caught.value).startswith(f"{tmp_path}/out: permission denied")


@pytest.mark.slow
@pytest.mark.starts
def test_a_disk_that_fills_up(shards: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    (shards / "0.tar").write_bytes(tar_bytes(samples([f"k{n:03d}" for n in range(300)])))
    settings = tmp_path / "run.yaml"
    settings.write_text(
        f"model: {{name: mini}}\noutput: {small}/out\nqueries: [{{name: fish, role: class}}]\n"
        f"source: {{format: webdataset, uri: {shards}}}\n"
        "runtime: {actors: 1, threads_per_actor: 1, rows_per_part: 50, batch_size: 25}\n"
    )
    again = f"{sys.executable} -m jobs run {settings}"
    count = f"{sys.executable} -m jobs scores {small}/out --csv - | wc -l"
    script = f"{again}; echo code $?; mount -o remount,size=50m {small}; {again}; {count}"
    done = on_a_small_disk(small, "150k", script)
    assert "the disk is full" in done.stderr
    assert "code 1" in done.stdout
    assert "300 rows, 300 explained" in done.stdout
    assert done.stdout.rstrip().endswith("301")
