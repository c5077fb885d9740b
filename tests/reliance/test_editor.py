"""The editor on drawn scenes: every image accounted for, the cue gone, the rest untouched."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from legrad.mini.world import SceneSpec, render
from legrad.models.load import load_model
from pipeline.config.audit_settings import RelianceConfig
from pipeline.reliance.editor import Editor
from pipeline.reliance.edits import Kind, PairEdits
from pipeline.reliance.regions import FILLS, Cells, cells_of
from pipeline.reliance.shortlist import IMAGE_COLUMNS, PairTask
from training.captions import named

COUNT = 12
NAMES = ("fish", "barcode", "sticker")


@pytest.fixture(scope="module")
def scenes() -> dict[str, Any]:
    """Fish with a barcode, the first four with a sticker beside it; and fish without."""
    made = {}
    for number in range(COUNT):
        overlays = ("barcode", "sticker") if number < 4 else ("barcode",)
        made[f"with/{number}"] = render(SceneSpec("fish", "sand", overlays, 50 + number))
        made[f"bare/{number}"] = render(SceneSpec("fish", "sand", (), 80 + number))
    return made


@pytest.fixture(scope="module")
def directions() -> Mapping[str, np.ndarray]:
    texts = load_model("mini").encode_text([named(name) for name in NAMES]).numpy()
    return dict(zip(NAMES, texts, strict=True))


@pytest.fixture(scope="module")
def model():
    return load_model("mini")


def task(scenes: Mapping[str, Any], *more: str) -> PairTask:
    def row(name: str) -> dict[str, Any]:
        others = ["sticker"] if name in {f"with/{n}" for n in range(4)} else []
        known = {"image_id": name, "width": 192, "height": 192, "others": others}
        return dict.fromkeys(IMAGE_COLUMNS) | known

    names = [*(n for n in scenes if n.startswith("with")), *more]
    bare = [name for name in scenes if name.startswith("bare")]
    return PairTask(
        "fish", "barcode", "fish", tuple(map(row, names)), tuple(map(row, bare)), ("sticker",)
    )


def editor(model: Any, scenes: Mapping[str, Any], directions: Any, **more: Any) -> Editor:
    def fetch(row: Mapping[str, Any]) -> Any:
        scene = scenes.get(row["image_id"])
        return "truncated: it ends early" if scene is None else model.preprocess(scene.image)

    return Editor(model, 2, directions, RelianceConfig(), fetch, batch_size=5, **more)


@pytest.fixture(scope="module")
def table(model: Any, scenes: Mapping[str, Any], directions: Any) -> pa.Table:
    return editor(model, scenes, directions).edit(task(scenes, "gone/1"))


def test_every_image_is_a_row_and_lost_ones_say_why(
    table: pa.Table, scenes: Mapping[str, Any]
) -> None:
    rows = table.to_pylist()
    originals = [r for r in rows if r["kind"] == Kind.ORIGINAL]
    assert {r["image_id"] for r in originals} == {f"with/{n}" for n in range(COUNT)} | {"gone/1"}
    lost = [r for r in rows if r["embedding"] is None]
    assert [(r["image_id"], r["error"]) for r in lost] == [("gone/1", "truncated: it ends early")]
    lengths = [np.linalg.norm(r["embedding"]) for r in rows if r["embedding"] is not None]
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert PairEdits.of(table).errors == ("truncated: it ends early",)


def test_deletion_takes_the_score_and_its_control_does_not(
    table: pa.Table, directions: Mapping[str, np.ndarray]
) -> None:
    edited, text = PairEdits.of(table), directions["barcode"]
    assert edited.images == COUNT
    assert len(edited.deleted.ids) >= COUNT // 2
    before = edited.deleted.before @ text
    without, control = edited.deleted.without @ text, edited.deleted.control @ text
    assert without.shape == (len(FILLS), len(before))
    assert (before - without).mean() > 5 * abs((before - control).mean())
    assert ((before - without) > 0).all()


def test_insertion_brings_the_score_and_its_control_does_not(
    table: pa.Table, directions: Mapping[str, np.ndarray]
) -> None:
    edited, text = PairEdits.of(table), directions["barcode"]
    came = (edited.inserted.inserted - edited.inserted.before) @ text
    other = (edited.inserted.control - edited.inserted.before) @ text
    assert len(came) == COUNT
    assert came.mean() > 5 * abs(other.mean())


def test_a_partner_is_deleted_too(table: pa.Table, directions: Mapping[str, np.ndarray]) -> None:
    rows = [r for r in table.to_pylist() if r["kind"] == Kind.JOINT]
    assert {r["partner"] for r in rows} == {"sticker"}
    both = [r for r in rows if r["image_id"] in {f"with/{n}" for n in range(4)}]
    for row in both:
        assert np.dot(row["embedding"], directions["sticker"]) < 0.15
    assert list(PairEdits.of(table).joint) == ["sticker"]


def test_regions_are_stored_and_controls_have_their_shape(table: pa.Table) -> None:
    regions: dict[tuple[str, str], np.ndarray] = {}
    for row in table.to_pylist():
        if row["kind"] in (Kind.DELETED, Kind.DELETED_ELSEWHERE):
            regions[row["image_id"], row["kind"]] = np.frombuffer(row["region"], np.uint8)
    for (name, kind), cells in regions.items():
        assert 0 < cells.sum() <= round(0.1 * cells.size)
        if kind == Kind.DELETED:
            other = regions[name, str(Kind.DELETED_ELSEWHERE)]
            assert other.sum() == cells.sum()
            assert not (other & cells).any()


def test_true_masks_are_taken_where_they_are_known(
    model: Any, scenes: Mapping[str, Any], directions: Any
) -> None:
    def masks(cue: str, image_id: str) -> Cells | None:
        if image_id != "with/7" or cue != "barcode":
            return None
        return cells_of(scenes[image_id].overlay_masks[cue], model.grid)

    made = editor(model, scenes, directions, masks=masks).edit(task(scenes)).to_pylist()
    found = [r["region"] for r in made if r["image_id"] == "with/7" and r["kind"] == Kind.DELETED]
    truth = masks("barcode", "with/7").astype(np.uint8).tobytes()  # type: ignore[union-attr]
    assert found
    assert set(found) == {truth}


def test_nothing_to_edit_is_an_empty_table(
    model: Any, scenes: Mapping[str, Any], directions: Any
) -> None:
    empty = PairTask("fish", "barcode", "fish", (), (), ())
    made = editor(model, scenes, directions).edit(empty)
    assert made.num_rows == 0
    assert PairEdits.of(made).images == 0


def test_a_task_survives_its_way_as_text(scenes: Mapping[str, Any]) -> None:
    mine = task(scenes)
    again = PairTask.from_json(mine.to_json())
    assert again == mine
    assert again.digest({"a": 1}) == mine.digest({"a": 1}) != mine.digest({"a": 2})
