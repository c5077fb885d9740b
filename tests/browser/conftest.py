"""Debian's chromium on a report whose names are hostile."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.report.site import write_report
from tests.reports import made_up

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<script>alert(1)</script>"
CLASSES = (HOSTILE, "a \"quoted\" & 'odd' class", "größe $x^2$ 鳥", "zebra", "</script><b>x")
CUES = ("watermark", "border", "barcode")
IMAGE = '"><img src=x onerror=alert(2)> ünï/{}.jpg'
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=_FLAGS.split())
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report = made_up(CLASSES, CUES, flagged=4, pages=14, image=IMAGE)
    write_report(report, folder)
    return folder


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of depth reliance."""
    folder = tmp_path_factory.mktemp("deep")
    write_report(made_up(("cat", "zebra"), CUES, flagged=3, pages=4, reliance=True), folder)
    return folder


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """A page that may neither complain nor ask nor reach out."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    opened = context.new_page()
    said: list[str] = []

    def note(kind: str, text: str) -> None:
        if "willReadFrequently" not in text and "ERR_ABORTED" not in text:  # the tests' own doing
            said.append(f"{kind}: {text}")

    opened.on("console", lambda message: note(message.type, message.text))
    opened.on("pageerror", lambda error: note("error", str(error)))
    opened.on("dialog", lambda dialog: (note("dialog", dialog.message), dialog.dismiss()))
    opened.on("requestfailed", lambda failed: note(failed.url, str(failed.failure)))
    yield opened
    context.close()
    assert said == []
