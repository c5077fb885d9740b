"""``legrad view`` on a large run: ``python -m benchmarks.viewer --folder FOLDER``.

Explains drawn scenes by a ViT-B-16 with random weights and repeats their rows with other embeddings
until there are a million, in parts as a run writes them. Then it starts the viewer as a user does
and measures from outside: seconds until pages are served, seconds of text queries, the process's
memory, and in chromium the time until the first and the last heatmap of a page of results are
painted. If the folder already holds such a run, it is used again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from http import HTTPStatus
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import numpy as np
import pyarrow as pa

from benchmarks.pipeline import configuration
from pipeline.cluster.session import session
from pipeline.demo.dataset import write_demo
from pipeline.flow import run
from pipeline.results import open_results
from pipeline.runs.manifest import run_folder
from pipeline.runs.parts import write_part
from pipeline.schema import EMBEDDING

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCENES = 240
PART_ROWS = 10_000
TEXTS = ("a red kite", "a harbour at night", "snow on a roof", "a ruler beside it", "two birds")
PARTIAL = "still being computed"
_HEATED = "() => document.querySelectorAll('.pictures .heated').length >= {}"


def main() -> None:
    """Make the run where it is missing, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="Where the run is written.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    out = options.folder / f"rows-{options.rows}"
    if not out.exists():
        _write(options.folder, out, options.rows)
    results = open_results(str(out))
    parts = list((out / "images").iterdir())
    width = results.rows.schema.field(EMBEDDING).type
    size = sum(part.stat().st_size for part in parts) / 1e9
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {len(results):,} images")
    print(f"{len(parts)} parts, {size:.2f} GB, {len(results.queries)} queries, embeddings {width}")
    for words in (out / "_run").glob("texts-*.npy"):  # left by an earlier measurement
        words.unlink()
    _measure(out)


def _write(folder: Path, out: Path, rows: int) -> None:
    """A real run on a few scenes, then its rows again and again."""
    small = folder / "small"
    if not small.exists():
        shards = write_demo(str(folder / "data"), SCENES)
        config = configuration(folder, shards, "ViT-B-16")
        with session():
            run(config.model_copy(update={"output": str(small)}))
    table = open_results(str(small)).dataset.to_table()
    width = len(table[EMBEDDING][0])
    rng = np.random.default_rng(0)
    draft = run_folder(f"{out}.draft")
    for number, start in enumerate(range(0, rows, PART_ROWS)):
        ids = np.arange(start, min(start + PART_ROWS, rows))
        part = table.take(pa.array(ids % table.num_rows))
        vectors = rng.normal(size=(len(ids), width)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = vectors.astype(np.float16).astype(np.float32).reshape(-1)
        offsets = np.arange(len(ids) + 1, dtype=np.int32) * width
        made = {
            "image_id": pa.array([f"{n:08d}" for n in ids]),
            EMBEDDING: pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat)),
        }
        for name, values in made.items():
            where = part.schema.get_field_index(name)
            part = part.set_column(where, part.schema.field(name), values)
        write_part(draft.images, part, number=number)
    of_all = shutil.ignore_patterns("complete*")  # how many rows the small run had
    shutil.copytree(small / "_run", f"{out}.draft/_run", ignore=of_all)
    Path(f"{out}.draft").rename(out)


def _measure(out: Path) -> None:
    start = time.perf_counter()
    command = [sys.executable, "-m", "jobs", "view", str(out), "--no-browser"]
    viewer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert viewer.stdout is not None
        address = viewer.stdout.readline().split()[1]
        begun = time.perf_counter()
        print(f"start-up, until the address is printed    {begun - start:6.2f} s")
        cookies = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
        _read(opener, address)
        base = address.split("/?")[0]
        for name, path, ready in (
            ("first page of images", "search", "<figure>"),
            ("first text query", f"search?q={TEXTS[0].replace(' ', '+')}", "<figure>"),
            ("findings by scores", "index.html", 'id="pairs"'),
        ):
            _until(opener, f"{base}/{path}", ready)
            print(f"{name:40s}  {time.perf_counter() - begun:6.2f} s after start-up")
        _ask(opener, base, "a text query while maps are read")
        _memory(viewer.pid)
        _until(opener, f"{base}/index.html", PARTIAL, there=False)
        print(f"{'all findings':40s}  {time.perf_counter() - begun:6.2f} s after start-up")
        _ask(opener, base, "a text query")
        _memory(viewer.pid)
        _paint(base, cookies)
        _memory(viewer.pid)
    finally:
        viewer.terminate()
        viewer.wait()


def _until(
    opener: urllib.request.OpenerDirector, address: str, text: str, *, there: bool = True
) -> None:
    """Ask for a page until a text is there, or no longer there."""
    while (text in _read(opener, address)) is not there:
        time.sleep(0.05)


def _read(opener: urllib.request.OpenerDirector, address: str) -> str:
    """A page, or the one that asks for patience."""
    try:
        return str(opener.open(address).read().decode())
    except HTTPError as reply:
        if reply.code != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return reply.read().decode()


def _ask(opener: urllib.request.OpenerDirector, base: str, name: str) -> None:
    """Time searches for texts that were not asked for before."""
    seconds = []
    for text in TEXTS:
        start = time.perf_counter()
        opener.open(f"{base}/search?q={f'{text}, {name}'.replace(' ', '+')}&order=lowest").read()
        seconds.append(time.perf_counter() - start)
    middle, worst = statistics.median(seconds), max(seconds)
    print(f"{name:40s}  {middle:6.2f} s (median), {worst:.2f} s (worst)")


def _memory(pid: int) -> None:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if "kB" in line}
    now, peak = (kibibytes[name] * 1024 / 1e9 for name in ("VmRSS", "VmHWM"))
    print(f"memory                                    {now:6.2f} GB now, {peak:.2f} GB at most")


def _paint(base: str, jar: CookieJar) -> None:
    """When the heat of a text that no query holds is painted, in chromium."""
    from playwright.sync_api import sync_playwright

    cookies = [{"name": c.name, "value": c.value or "", "url": base} for c in jar]
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.add_cookies(cookies)  # type: ignore[arg-type]
        page = context.new_page()
        for text in ("a fishing boat", "a striped hat"):
            print(f"heat of a text, by image: {json.dumps(_painted(page, base, text))} s")
        browser.close()


def _painted(page: "Page", base: str, text: str) -> dict[str, float]:
    start = time.perf_counter()
    page.goto(f"{base}/search?q={text.replace(' ', '+')}", wait_until="commit")
    page.wait_for_selector(".pictures figure")
    seconds = {"page": time.perf_counter() - start}
    for count in (1, 12, 24):
        page.wait_for_function(_HEATED.format(count), timeout=120_000)
        seconds[f"heatmap {count}"] = time.perf_counter() - start
    return {name: round(value, 2) for name, value in seconds.items()}


if __name__ == "__main__":
    main()
