"""Pictures of a report for docs/, by chromium.

``python -m benchmarks.screenshots demo/report --class "frozen fish"``
"""

import argparse
import io
import re
import shutil
from itertools import product
from pathlib import Path

from PIL import Image

from pipeline.report.words import slug

_TALLEST = {1440: 1500, 390: 1150}  # page width -> largest height of a picture
_KEPT = {1440: 1200, 390: 390}  # page width -> width of the picture in docs/
_READY = """async () => {
    for (const image of document.images) { image.loading = "eager"; }
    await Promise.all([...document.images].map((image) => image.decode().catch(() => 0)));
}"""


def main() -> None:
    """Take a picture of each page at both widths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--class", dest="label", default="frozen fish")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs")
    options = parser.parse_args()
    site = options.report.resolve()
    label = slug(options.label)
    own = label.rpartition("-")[0]
    links = re.findall(rf'href="(pairs/{own}-[^"]+)"', (site / "index.html").read_text("utf-8"))
    pages = {
        "table": site / "index.html",
        "pair": site / links[0],
        "class": site / "classes" / f"{label}.html",
    }
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for width, name in product(_KEPT, pages):
            page = browser.new_context(
                viewport={"width": width, "height": 900},
                device_scale_factor=2 if width < 1000 else 1,
                offline=True,
            ).new_page()
            page.goto(pages[name].as_uri())
            page.evaluate(_READY)
            shot = page.screenshot(full_page=True)
            keep(shot, width, options.out / f"report-{name}-{width}.webp")
        browser.close()


def keep(shot: bytes, width: int, path: Path) -> None:
    """The upper part of a page as a small WebP."""
    with Image.open(io.BytesIO(shot)) as image:
        scale = image.width / width
        upper = image.crop((0, 0, image.width, min(image.height, int(_TALLEST[width] * scale))))
    small = upper.convert("RGB").resize(
        (_KEPT[width], upper.height * _KEPT[width] // upper.width), Image.Resampling.LANCZOS
    )
    small.save(path, "WEBP", quality=82, method=6)


if __name__ == "__main__":
    main()
