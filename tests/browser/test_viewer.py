"""The loop in a real browser: search, label, watch the interval, and come back later."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from shutil import copytree
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from pipeline.viewer import View, serve
from tests.conftest import DemoRun

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.starts
_SERIOUS = ("serious", "critical")
_SEEN = """() => document.querySelectorAll("#tiles img").length === 12
    && [...document.querySelectorAll("#tiles img")].every((image) => image.naturalWidth > 0)"""
PAIR = "class=frozen+fish&cue=watermark"


@contextmanager
def served(out: str) -> Iterator[str]:
    """The address to open; the server ends with the context."""
    addresses: Queue[str] = Queue()
    done = threading.Event()
    thread = threading.Thread(target=serve, args=(View(out), 0, addresses.put, done), daemon=True)
    thread.start()
    try:
        yield addresses.get(timeout=60)
    finally:
        done.set()
        thread.join(timeout=60)


@pytest.fixture
def out(demo_run: DemoRun, tmp_path: Path) -> str:
    return str(copytree(demo_run.output, tmp_path / "out"))


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: said.append(f"error: {error}"))
    yield opened
    context.close()
    assert said == []


def enter(page: "Page", address: str) -> str:
    page.goto(address)
    page.wait_for_selector("#pairs tbody tr", timeout=120_000)
    return address.split("/?", 1)[0]


def mark_several(page: "Page", out: str) -> None:
    """Answer twelve images together, and take it back; marks stay until they are stored."""
    page.keyboard.press("s")
    page.wait_for_function(_SEEN)
    tiles = page.locator("#tiles button")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("3")
    said = ["absent", "present", "cannot tell", *["absent"] * 9]
    assert [text.strip() for text in tiles.all_inner_texts()] == said
    shown = tiles.evaluate_all("tiles => tiles.map((tile) => JSON.parse(tile.dataset.name)[1])")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('31 ')")
    rows = pd.read_csv(f"{out}/_run/labels.csv").drop_duplicates("image_id")
    assert list(rows.set_index("image_id").loc[shown, "answer"]) == said
    page.keyboard.press("z")
    page.wait_for_function("() => document.getElementById('count').textContent.startsWith('19 ')")
    assert [text.strip() for text in tiles.all_inner_texts()] == said  # marked as before
    page.keyboard.press("ArrowDown")
    page.keyboard.press("s")
    page.keyboard.press("s")
    assert [text.strip() for text in tiles.all_inner_texts()] == said


def test_search_label_and_come_back(page: "Page", out: str) -> None:
    with served(out) as address:
        base = enter(page, address)
        page.keyboard.press("/")
        page.goto(f"{base}/search")
        page.keyboard.press("/")
        page.keyboard.type("a watermark over a fish")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=a+watermark+over+a+fish*")
        pictures = page.locator(".pictures img")
        assert pictures.count() == 24
        page.wait_for_function("() => document.querySelector('.pictures img').naturalWidth > 0")
        assert page.locator(".problem").count() == 0
        page.goto(f"{base}/label?{PAIR}")
        page.click("text=Draw images")
        page.wait_for_selector("#begin:not([hidden])")
        page.fill("#who", "ann")
        page.locator("#who").blur()
        page.keyboard.press("Space")
        interval = ""
        for half in ("12" * 5, "21" * 5):
            for key in half:
                before = page.inner_text("#count")
                page.keyboard.press(key)
                page.wait_for_function(
                    "before => document.getElementById('count').textContent !== before", arg=before
                )
            page.wait_for_selector("#intervals:not([hidden])")
            shown = "document.getElementById('low').parentElement.textContent"
            page.wait_for_function(f"before => {shown} !== before", arg=interval)
            interval = page.evaluate(shown)
            answers = page.locator("[data-answer=absent]").bounding_box()
            assert answers
            assert answers["y"] + answers["height"] < 900  # beside the estimate
        page.fill("#who", "ben")
        page.locator("#who").blur()
        page.keyboard.press("z")  # takes back what ann said
        page.wait_for_function(
            "() => document.getElementById('count').textContent.startsWith('19 ')"
        )
        assert pd.read_csv(f"{out}/_run/labels.csv")["image_id"].nunique() == 19
        page.fill("#who", "ann")
        page.locator("#who").blur()
        mark_several(page, out)
    with served(out) as address:
        base = enter(page, address)
        page.goto(f"{base}/label?{PAIR}")
        assert page.inner_text("#count").startswith("19 ")
        assert page.input_value("#who") == "ann"  # though the server has another port now
        page.click("text=Compute the findings again")
        page.wait_for_selector("#judge", timeout=120_000)
        page.locator(".pictures .open").first.click()
        page.wait_for_selector(".full img")


def test_anybody_can_use_it_on_any_screen(page: "Page", out: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with served(out) as address:
        base = enter(page, address)
        page.goto(f"{base}/label?{PAIR}")
        page.click("text=Draw images")
        page.wait_for_selector("#begin:not([hidden])")
        paths = ["index.html", "search?q=watermark", f"label?{PAIR}", "label", "next?q=a+kite"]
        page.goto(f"{base}/{paths[1]}")
        paths.append(page.locator("figcaption a").first.get_attribute("href") or "")
        page.goto(f"{base}/{paths[2]}")
        paths.append(page.locator(".pair-name a").get_attribute("href") or "")
        for path in paths:
            page.goto(f"{base}/{path}")
            schemes: tuple[Any, ...] = ("light", "dark")
            for scheme in schemes:
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                found = axe.run(page, options={"preload": False}).response["violations"]
                grave = [(f["id"], f["nodes"][0]["html"]) for f in found if f["impact"] in _SERIOUS]
                assert grave == [], path
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            page.set_viewport_size({"width": 1440, "height": 900})
