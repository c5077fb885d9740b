"""Reading results at scale: ``python -m benchmarks.results``.

Writes a synthetic run (maps of 14x14 cells) in large sorted parts, as ``legrad compact`` leaves it,
and in small ones, as a run does; then asks both the same questions, through this package, plain
DuckDB and plain pandas. Every time includes opening the folder. Cold: after the kernel was asked to
drop the files' pages (posix_fadvise); warm: the median of the rounds after.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pandas as pd
import psutil

from benchmarks.results_data import GRID, Writer, make_run, query_names, tables
from legrad.heatmaps.codec import decode_maps
from pipeline import open_results

SMALL_PART = 5_000
LARGE_PART = 100_000
TOP = 100
WANTED = 1_000
WIDE = 256
WIDE_PARTS = 100
Question = Callable[[], object]


def main() -> None:
    """Write the synthetic runs, time the questions, and print a table."""
    options = _options()
    if options.iterate:
        print(_iterated(options.iterate))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {load:.1f}; {options.rows:,} rows x {options.queries}")
        names = query_names(options.queries)
        _write(place, options.rows, names)
        for layout in ("large", "small"):
            _ask(place / layout, names, options.rows, options.rounds)
        _memory(place / "large")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _wide(Path(folder) / "wide", options.rounds)
    if not options.no_maps:
        from benchmarks import map_bytes  # brings torch

        map_bytes.report()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="Where to write; default the system's temporary folder.")
    parser.add_argument("--no-maps", action="store_true", help="Leave out bytes per real map.")
    parser.add_argument("--iterate", help=argparse.SUPPRESS)
    return parser.parse_args()


def _write(place: Path, rows: int, names: list[str]) -> None:
    writers = []
    for layout, size in (("large", LARGE_PART), ("small", SMALL_PART)):
        folder, schema = make_run(place / layout, names)
        writers.append(Writer(folder, size))
    start = time.perf_counter()
    for table in tables(rows, names, schema, seed=0):
        for writer in writers:
            writer.write(table)
    for writer in writers:
        writer.close()
        files = [path.stat().st_size for path in Path(writer.folder.images.path).iterdir()]
        print(f"  {Path(writer.folder.uri).name}: {len(files)} parts, {sum(files) / 1e9:.2f} GB")
    print(f"  written in {time.perf_counter() - start:.0f} s")


def _ask(place: Path, names: list[str], rows: int, rounds: int) -> None:
    query, level = names[len(names) // 2], _level(place, names[len(names) // 2])
    sides: dict[str, dict[str, Question]] = {
        f"scores of one query, {rows:,} rows": {
            "ours": lambda: open_results(str(place)).scores([query]),
            "duckdb": lambda: _sql(place, f"select image_id, score__{query} from IMAGES").df(),
            "pandas": lambda: pd.read_parquet(
                place / "images", columns=["image_id", f"score__{query}"]
            ),
        },
        f"filter and decode {WANTED:,} maps": {
            "ours": lambda: open_results(str(place)).maps(query, where=f"score__{query} > {level}"),
            "duckdb": lambda: _decoded(_sql(place, _selecting(query, level)).df(), query),
            "pandas": lambda: _decoded(
                pd.read_parquet(
                    place / "images",
                    columns=["image_id", f"heatmap__{query}", f"heatmap_max__{query}"],
                    filters=[(f"score__{query}", ">", level)],
                ),
                query,
            ),
        },
        f"{WANTED:,} maps by id": {
            "ours": lambda: open_results(str(place)).maps(query, _some_ids(rows)),
        },
        f"top {TOP}": {
            "ours": lambda: open_results(str(place)).top(query, TOP),
            "duckdb": lambda: _sql(
                place,
                f"select image_id, label, score__{query} from IMAGES order by score__{query} "
                f"desc limit {TOP}",
            ).df(),
            "pandas": lambda: pd.read_parquet(
                place / "images", columns=["image_id", "label", f"score__{query}"]
            ).nlargest(TOP, f"score__{query}"),
        },
    }
    print(f"\n{place.name} parts{'':40s}cold s   warm s")
    for what, askers in sides.items():
        for who, question in askers.items():
            cold, warm = _timed(place, question, rounds)
            print(f"  {what:38s} {who:8s} {cold:6.3f}   {warm:6.3f}", flush=True)


def _selecting(query: str, level: float) -> str:
    return (
        f"select image_id, heatmap__{query}, heatmap_max__{query} from IMAGES "
        f"where score__{query} > {level}"
    )


def _sql(place: Path, query: str) -> duckdb.DuckDBPyRelation:
    connection = duckdb.connect()
    return connection.sql(query.replace("IMAGES", f"'{place}/images/*.parquet'"))


def _level(place: Path, query: str) -> float:
    """A score that about `WANTED` images exceed."""
    scores = open_results(str(place)).scores([query])[query].to_numpy()
    return float(np.partition(scores, -WANTED - 1)[-WANTED - 1]) if len(scores) > WANTED else -1.0


def _some_ids(rows: int) -> list[str]:
    numbers = np.random.default_rng(1).choice(rows, min(WANTED, rows), replace=False)
    return [f"train/shard-{n // 5000:06d}.tar/{n:09d}" for n in numbers]


def _decoded(frame: pd.DataFrame, query: str) -> np.ndarray:
    raw = b"".join(bytes(cells) for cells in frame[f"heatmap__{query}"])
    cells = np.frombuffer(raw, np.uint8).reshape(-1, *GRID)
    return decode_maps(cells, frame[f"heatmap_max__{query}"].to_numpy())


def _timed(place: Path, question: Question, rounds: int) -> tuple[float, float]:
    """Seconds after the files' pages were dropped, and with them in memory (medians)."""
    cold, warm = [], []
    for _ in range(3):
        _drop(place)
        cold.append(_seconds(question))
    for _ in range(rounds):
        warm.append(_seconds(question))
    return median(cold), median(warm)


def _seconds(question: Question) -> float:
    start = time.perf_counter()
    question()
    return time.perf_counter() - start


def _drop(place: Path) -> None:
    """Ask the kernel to forget the files (it may keep pages that are mapped or dirty)."""
    for path in place.rglob("*.parquet"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _memory(place: Path) -> None:
    """Time and memory of iter_maps over all maps, in a separate process."""
    command = [sys.executable, "-m", "benchmarks.results", "--iterate", str(place)]
    completed = subprocess.run(command, check=True, capture_output=True, text=True)
    print(f"\niter_maps over all maps of all queries: {completed.stdout.strip()}")


def _iterated(place: str) -> str:
    results = open_results(place)
    names = [query.name for query in results.queries]
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    total, maps = 0.0, 0
    for _, heat in results.iter_maps(names):
        total += float(heat.sum())
        maps += heat.shape[0] * heat.shape[1]
    seconds = time.perf_counter() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return (
        f"{maps:,} maps in {seconds:.1f} s, peak {peak / 1e6:.0f} MB in all, "
        f"{before / 1e6:.0f} MB before"
    )


def _wide(place: Path, rounds: int) -> None:
    """Footers of 256 queries: as many parts as 1 M rows have (512 MB each), with few rows each."""
    names = query_names(WIDE)
    folder, schema = make_run(place, names)
    writer = Writer(folder, 20)
    for table in tables(20 * WIDE_PARTS, names, schema, seed=0):
        writer.write(table)
    writer.close()
    parts = sorted(Path(folder.images.path).iterdir())
    sizes = [int.from_bytes(path.read_bytes()[-8:-4], "little") for path in parts]
    print(f"\n{WIDE} queries, {len(parts)} parts: footer {median(sizes) / 1e3:.0f} kB each")
    for what, question in {
        "open and count": lambda: len(open_results(str(place))),
        "open and one query's scores": lambda: open_results(str(place)).scores([names[7]]),
        "the same, duckdb": lambda: _sql(place, f"select score__{names[7]} from IMAGES").df(),
    }.items():
        cold, warm = _timed(place, question, rounds)
        print(f"  {what:38s} {'':8s} {cold:6.3f}   {warm:6.3f}")


if __name__ == "__main__":
    main()
