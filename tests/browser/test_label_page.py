"""The page to label on: three keys, undo, half-done work, and the table that it saves."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pipeline import Audit
from pipeline.labelling import Written, write_labelling
from tests.audit.worlds import World, labels

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.starts
HOSTILE = '</script><b>"x", y\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = World(labels(400, [HOSTILE, "dog", "cat"]))
    made.cue("tag", {HOSTILE: 0.7}).cue("ink", {"dog": 0.6})
    return made.write(tmp_path_factory.mktemp("run") / "out", {})


def drawn(run: str, folder: Path) -> Written:
    pairs = [(HOSTILE, "tag"), ("dog", "ink")]
    return write_labelling(Audit.from_results(run), folder, pairs=pairs, labels=4)


def saved(page: "Page", folder: Path) -> pd.DataFrame:
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(folder / "labels.csv")
    return pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)


def test_keys_undo_and_half_done_work(page: "Page", run: str, tmp_path: Path) -> None:
    written = drawn(run, tmp_path)
    page.goto(written.page.as_uri())
    assert page.inner_text("#begin .cue") == "tag"
    page.fill("#who", "ann, b.")
    page.locator("#who").blur()
    page.keyboard.press("1")  # nothing is shown yet
    assert page.inner_text("#count") == f"0 of {written.tasks}"
    page.keyboard.press("Space")
    for key in "1231":
        page.keyboard.press(key)
    page.keyboard.press("z")
    assert page.inner_text("#count") == f"3 of {written.tasks}"
    rows = saved(page, tmp_path)
    before = pd.read_csv(written.table, dtype=str, keep_default_na=False)
    names = ["image_id", "cue", "group", "stratum", "probability"]
    assert rows[names].equals(before[names])
    said = rows[rows["answer"] != ""].drop_duplicates(["image_id", "cue"])
    assert list(said["answer"]) == ["present", "absent", "cannot tell"]
    assert set(said["who"]) == {"ann, b."}
    page.reload()
    assert page.inner_text("#count") == f"3 of {written.tasks}"
    again = drawn(run, tmp_path)  # reads the saved table
    assert again.answered == 3
    page.evaluate("localStorage.clear()")
    page.goto(again.page.as_uri())
    assert page.inner_text("#count") == f"3 of {written.tasks}"


def test_to_the_end(page: "Page", run: str, tmp_path: Path) -> None:
    written = drawn(run, tmp_path)
    page.goto(written.page.as_uri())
    for _ in range(written.tasks):
        if page.locator("#begin").is_visible():
            page.keyboard.press("Space")
        page.click("[data-answer=absent]")
    assert page.locator("#finished").is_visible()
    assert f"legrad audit {run}" in page.inner_text("#next")
    rows = saved(page, tmp_path)
    assert set(rows["answer"]) == {"absent"}
    assert set(rows["group"]) == {HOSTILE, "dog", "(elsewhere)"}
    page.click("#undo-last")
    assert page.inner_text("#count") == f"{written.tasks - 1} of {written.tasks}"


def test_the_page_can_be_used_by_all(page: "Page", run: str, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.goto(drawn(run, tmp_path).page.as_uri())
    for _ in range(2):
        found = axe.run(page).response["violations"]
        assert [fault["id"] for fault in found] == []
        page.keyboard.press("Space")
