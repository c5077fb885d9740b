"""What open_results says to outputs that are not whole, not ours, newer or older."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import open_results
from pipeline.errors import UsageError
from pipeline.runs.manifest import RunFolder
from pipeline.runs.parts import committed_parts
from pipeline.schema import SCHEMA_VERSION
from tests.parts import METADATA, data, earlier_part, ids, make_run, part, pending, ray_name, rows

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = make_run(tmp_path / "out")
    for number in range(3):
        part(run, rows(f"{number}.tar", "01"))
    return run


@pytest.fixture
def earlier(tmp_path: Path) -> RunFolder:
    """A run of a version with Ray's checkpoint."""
    run = make_run(tmp_path / "earlier")
    for number in range(3):
        earlier_part(run, ray_name(number), rows(f"{number}.tar", "01"))
    return run


def part_of(folder: RunFolder) -> Path:
    return Path(committed_parts(folder)[1].path)


def test_only_committed_parts_while_a_run_is_going(folder: RunFolder) -> None:
    before = open_results(folder.uri)
    assert len(before) == 6
    (Path(folder.images.path) / ".part-0.parquet.0123abcd.draft").write_bytes(b"half")
    part(folder, rows("7.tar", "0"))
    assert (len(before), len(open_results(folder.uri))) == (6, 7)


def test_only_committed_parts_of_an_earlier_version(earlier: RunFolder) -> None:
    data(earlier, ray_name(7), rows("7.tar", "0"))
    pending(earlier, ray_name(7), rows("7.tar", "0"), "wave-0000")
    before = open_results(earlier.uri)
    assert len(before) == 6
    ids(earlier, ray_name(7), rows("7.tar", "0"), "wave-0000")
    assert (len(before), len(open_results(earlier.uri))) == (6, 7)


def test_foreign_files_beside_the_data(folder: RunFolder) -> None:
    images = Path(folder.images.path)
    (images / "notes.txt").write_text("of the user")
    assert len(open_results(folder.uri).scores()) == 6
    (images / "mine.parquet").write_bytes(b"of the user")
    with pytest.raises(UsageError, match=r"images/mine.parquet"):
        open_results(folder.uri).scores()


def test_a_manifest_that_is_half_written(folder: RunFolder) -> None:
    folder.manifest.write(folder.manifest.read()[:-30])
    with pytest.raises(UsageError, match=r"manifest.json"):
        open_results(folder.uri)


def test_a_part_that_is_gone(earlier: RunFolder) -> None:
    (Path(earlier.images.path) / f"{ray_name(1)}-0.parquet").unlink()
    with pytest.raises(UsageError, match=ray_name(1)):
        open_results(earlier.uri).scores()


def test_a_part_that_is_broken(folder: RunFolder) -> None:
    path = part_of(folder)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=path.name):
        open_results(folder.uri).images()


def test_a_part_of_another_run(folder: RunFolder, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = part_of(folder)
    table = pq.read_table(path)
    about = json.dumps(METADATA | {"config_digest": "other"}).encode()
    pq.write_table(table.replace_schema_metadata({b"legrad": about}), path)
    with pytest.raises(UsageError, match=path.name):
        len(open_results(folder.uri))


def test_nothing_committed_yet(tmp_path: Path) -> None:
    results = open_results(make_run(tmp_path / "out").uri)
    with pytest.raises(UsageError, match="committed"):
        results.scores()


def test_a_newer_version(folder: RunFolder) -> None:
    manifest = json.loads(folder.manifest.read())
    manifest["metadata"]["schema_version"] = SCHEMA_VERSION + 1
    folder.manifest.write(json.dumps(manifest).encode())
    with pytest.raises(UsageError, match=f"{SCHEMA_VERSION + 1}.*{SCHEMA_VERSION}"):
        open_results(folder.uri)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_outputs_of_every_schema_version(version: int) -> None:
    """A run of 12 drawn scenes, as the version of its time wrote it."""
    results = open_results(str(GOLDEN / f"v{version}"))
    expected = json.loads((GOLDEN / f"v{version}.json").read_text())
    assert results.run["metadata"]["schema_version"] == version
    assert list(results.grid) == expected["grid"]
    assert results.images(["label"])["label"].to_dict() == expected["labels"]
    for name, scores in expected["scores"].items():
        found = results.scores([name])[name]
        np.testing.assert_allclose(found.loc[list(expected["labels"])], scores, rtol=1e-6)
    image_id, query = expected["map_of"]
    _, maps = results.maps(query, [image_id])
    np.testing.assert_allclose(maps[0], expected["map"], rtol=1e-6)
    assert len(results.compare(query, query)) == len(results) == 12
    for name, values in expected.get("properties", {}).items():
        found = results.images([name])[name].loc[list(expected["labels"])]
        np.testing.assert_allclose(found, values, rtol=1e-6)
