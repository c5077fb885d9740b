"""Data sets in formats that are not read: refused with the line that converts them."""

import ast
import re
from pathlib import Path

import pytest

from pipeline.config import ModelConfig
from pipeline.errors import UsageError
from pipeline.sources.datasource import open_source
from pipeline.sources.foreign_layouts import foreign_layout
from pipeline.starter.files import write_starter
from tests.data import jpeg, settings

LAYOUTS = {
    "saved to disk": (
        ["dataset_info.json", "state.json", "data-00000-of-00001.arrow"],
        "to_parquet",
    ),
    "saved splits": (["dataset_dict.json", "train/data-00000-of-00001.arrow"], "load_from_disk"),
    "mds": (["index.json", "shard.00000.mds.zstd"], "streaming"),
    "litdata": (["index.json", "chunk-0-0.bin"], "litdata"),
    "litdata compressed": (["index.json", "chunk-1-0.zstd.bin"], "litdata"),
    "tfrecord": (["train.tfrecord-00000-of-00002"], "tfrecord_loader"),
    "imagenet's tfrecord": (["train-00000-of-01024"], "tfrecord_loader"),
    "zip": (["a.zip", "b.zip"], "unzip"),
    "7z": (["a.7z"], "7z x"),
    "lmdb": (["data.mdb", "lock.mdb"], "LMDB"),
    "hdf5": (["x.h5"], "h5py"),
    "arrays": (["pathmnist.npz"], "image.save"),
    "mnist": (["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"], "image.save"),
    "cifar": (["data_batch_1", "batches.meta"], "image.save"),
    "recordio": (["train.rec", "train.idx"], "image.save"),
    "dicom": (["a/0.dcm"], "dcmj2pnm"),
    "videos": (["a.mp4", "b.avi"], "ffmpeg"),
    "lerobot with videos": (["meta/info.json", "data/c/e.parquet", "videos/c/e.mp4"], "ffmpeg"),
    "lerobot": (["meta/info.json", "data/c/e.parquet"], "legrad init {root}/data"),
}


def made(root: Path, names: list[str]) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return str(root)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"])
def test_a_run_says_what_to_do(layout: str, kind: str, tmp_path: Path) -> None:
    names, advice = LAYOUTS[layout]
    root = made(tmp_path / "data", names)
    if kind == "parquet" and layout.startswith("lerobot"):
        return  # its tables are read
    with pytest.raises(UsageError, match=re.escape(advice.format(root=root))):
        open_source(settings(kind, root))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_init_says_what_to_do(layout: str, tmp_path: Path) -> None:
    names, advice = LAYOUTS[layout]
    root = made(tmp_path / "data", names)
    with pytest.raises(UsageError, match=re.escape(advice.format(root=root))):
        write_starter(root, ModelConfig(name="mini"), tmp_path / "run.yaml")
    assert not (tmp_path / "run.yaml").exists()


def test_a_single_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(UsageError, match=f"for z in {tmp_path}/a.zip; do unzip"):
        open_source(settings("webdataset", f"{tmp_path}/a.zip"))


@pytest.mark.parametrize("names", [["a.jpg", "b.zip"], ["a/0001"], ["index.json", "x.bin"], []])
def test_other_folders_are_not_mistaken(names: list[str], tmp_path: Path) -> None:
    if "a.jpg" in names:
        made(tmp_path, names)
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        assert len(open_source(settings("folder", str(tmp_path))).units) == 1
    else:
        assert foreign_layout("x", names) is None


def test_commands_are_python() -> None:
    for names, _ in LAYOUTS.values():
        code = re.search(r'python -c "(.*?)"[ ,]', foreign_layout("data/x", names) or "")
        if code:
            ast.parse(code[1])
