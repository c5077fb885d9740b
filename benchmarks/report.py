"""Size of a large report, and how long its first page takes to open in chromium.

``python -m benchmarks.report --classes 1000 --cues 100``
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from pipeline.report.choice import affordable
from pipeline.report.contents import Limits
from pipeline.report.site import write_report
from tests.reports import made_up


def main() -> None:
    """Write a report, and measure its size and the time to open it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--cues", type=int, default=100)
    parser.add_argument("--pages", type=int, default=200)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    names = [f"class number {n}" for n in range(options.classes)]
    cues = [f"cue_{n}" for n in range(options.cues)]
    start = time.perf_counter()
    total = affordable(Limits(), options.classes * options.cues, options.pages, options.classes)
    each = total // (2 * options.pages)
    write_report(made_up(names, cues, flagged=40, pages=options.pages, each=each), folder)
    written = time.perf_counter() - start
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(json.dumps({"MB": size / 1e6, "written_s": written, "opened_s": opened(folder)}))
    shutil.rmtree(folder)


def opened(folder: Path) -> list[float]:
    """Seconds until the table has rows, for three visits, each with an empty cache."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(3):
            page = browser.new_context(offline=True).new_page()
            start = time.perf_counter()
            page.goto((folder / "index.html").as_uri())
            page.wait_for_selector("#pairs tbody tr")
            times.append(time.perf_counter() - start)
        browser.close()
    return times


if __name__ == "__main__":
    main()
