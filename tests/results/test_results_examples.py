"""docs/results.md runs as it stands, and says true things."""

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import pipeline
from pipeline import open_results
from pipeline.results import Results
from tests.conftest import DemoRun

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)


@pytest.fixture(scope="module")
def names(demo_run: DemoRun) -> dict[str, Any]:
    """What the page's code has defined at its end."""
    mpl.use("agg")
    scope: dict[str, Any] = {"out": demo_run.output, "plot": str(demo_run.folder / "plot.png")}
    assert len(BLOCKS) >= 10
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), scope)
    return scope


def test_overlaps(names: dict[str, Any]) -> None:
    overlap = names["overlap"]
    labels = names["results"].images(["label"])["label"]
    there = names["results"].scores(["watermark"])["watermark"] > 0.1
    assert set(overlap.index) == set(labels.index[(labels == "frozen fish") & there])
    assert 0 < len(overlap) < (labels == "frozen fish").sum()
    assert overlap["cosine"].between(0, 1).all()
    assert overlap["pearson"].between(-1, 1).all()
    assert names["suspects"]["pearson"].is_monotonic_decreasing


def test_tops(names: dict[str, Any]) -> None:
    scores = names["results"].scores(["bird"])["bird"]
    top = names["tops"]["bird"]
    assert list(top["score"]) == sorted(scores, reverse=True)[:50]
    assert set(names["best"]["image_id"]) == set(top.index)


def test_means_with_and_without_this_package(names: dict[str, Any]) -> None:
    by_hand = names["heat"].mean(axis=0).reshape(names["results"].grid)
    np.testing.assert_allclose(by_hand, names["means"]["boat"], rtol=1e-5)
    ours = names["boats"].legrad.maps("water").mean(axis=0)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-5)


def test_plot_and_table(names: dict[str, Any]) -> None:
    assert Path(names["plot"]).stat().st_size > 5_000
    assert names["by_label"]["water"].is_monotonic_decreasing
    assert set(names["long"]["query"]) == {"bird", "water"}


METHODS = (method for _, method in inspect.getmembers(Results, inspect.isfunction))
HELP = (pipeline, open_results, Results, *METHODS)
NAMES = {
    "'dog'": "'bird'",
    '"dog"': '"bird"',
    "'fish'": "'frozen fish'",
    "leash": "watermark",
    "_dog": "_bird",
    '"out"': "out",
    '"out-more-queries"': "out",
}
"""What the examples speak of, and what the demo has of the kind."""


def test_the_examples_of_help_run(
    demo_run: DemoRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order and in one scope, as a reader types them."""
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"out": demo_run.output, "results": open_results(demo_run.output)}
    exec(
        "import duckdb, glob, json, numpy as np, pandas as pd, polars as pl\n"
        "import matplotlib.pyplot as plt, pyarrow.compute as pc, pyarrow.parquet as pq\n"
        "from collections import defaultdict",
        scope,
    )
    ids = scope["results"].images().index
    (tmp_path / "splits.csv").write_text(f"image_id,split\n{ids[0]},test\n{ids[1]},train\n")
    ran = 0
    for thing in HELP:
        for block in re.findall(r"::\n\n((?: {4,}.*\n|\n)+)", f"{inspect.getdoc(thing)}\n"):
            code = textwrap.dedent(block)
            for told, here in NAMES.items():
                code = code.replace(told, here)
            exec(compile(code, f"help({thing.__name__})", "exec"), scope)
            ran += 1
    assert ran >= 12
    assert len(scope["mine"].scores(["watermark"], where="split = 'test'")) == 1
    assert set(scope["means"]) == set(scope["label"].unique())
    assert scope["means"]["bird"].shape == scope["results"].grid
