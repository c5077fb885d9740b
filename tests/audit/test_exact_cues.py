"""Properties against classes: known effects, spreads and tails, and nothing from chance."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from scipy.stats import brunnermunzel

from pipeline import Audit
from pipeline.audit.exact_cues import COLUMNS, find_exact, win_odds
from pipeline.audit.scores import count_population
from pipeline.config.audit_settings import Gates
from pipeline.schema import property_column
from tests.audit.worlds import World, labels

GATES = Gates()


@dataclass
class Stored:
    """Rows in memory, as the audit reads them."""

    dataset: ds.Dataset


def stored(labels: Any, status: list[str] | None = None, **properties: Any) -> Stored:
    columns = {"label": pa.array(list(labels)), "status": status or ["ok"] * len(labels)}
    for name, values in properties.items():
        columns[property_column(name)] = pa.array(np.asarray(values, np.float32), from_pandas=True)
    return Stored(ds.dataset(pa.table(columns)))


def audit(labels: Any, status: list[str] | None = None, **properties: Any) -> pd.DataFrame:
    results = stored(labels, status, **properties)
    frame = find_exact(results, count_population(results, 100), GATES)
    return frame.set_index(["class", "cue"])


def drawn(sizes: dict[str, int]) -> np.ndarray:
    return np.repeat(list(sizes), list(sizes.values()))


def test_the_test_of_brunner_and_munzel() -> None:
    rng = np.random.default_rng(1)
    values = [rng.integers(0, 12, 40), rng.integers(3, 15, 70), rng.integers(0, 15, 90)]
    counts = np.stack([np.bincount(v, minlength=15) for v in values]).astype(float)
    found = win_odds(counts)
    for code in range(3):
        rest = np.concatenate([v for n, v in enumerate(values) if n != code])
        expected = brunnermunzel(rest, values[code])
        assert found["p"][code] == pytest.approx(expected.pvalue, rel=1e-6)


def test_a_blurred_class_is_flagged_and_no_other() -> None:
    rng = np.random.default_rng(2)
    classes = drawn({"a": 200, "b": 200, "c": 200})
    sharpness = rng.lognormal(6, 1, 600) * np.where(classes == "a", 0.2, 1)
    found = audit(classes, sharpness=sharpness, brightness=rng.beta(4, 4, 600))
    flagged = found[found["association__flag"]]
    row = found.loc[("a", "property__sharpness")]
    assert row["direction"] == "less"
    assert row["association__low"] > 3
    assert row["median"] < row["median_elsewhere"]
    assert set(found["association__basis"]) == {"exact"}
    others = set(flagged.index) - {("b", "property__sharpness"), ("c", "property__sharpness")}
    assert others == {("a", "property__sharpness")}


def test_perfectly_apart() -> None:
    classes = drawn({"a": 40, "b": 60})
    found = audit(classes, brightness=np.where(classes == "a", 0.9, 0.1)).loc["a"].iloc[0]
    assert found["association__flag"]
    assert np.isfinite(found[["association__low", "association__high"]].astype(float)).all()
    assert found["score_auc"] == 1


def test_grey_framed_and_png_images_have_shares() -> None:
    rng = np.random.default_rng(3)
    classes = drawn({"a": 200, "b": 400})
    inside = classes == "a"
    grey = rng.random(600) < np.where(inside, 0.5, 0.1)
    png = rng.random(600) < np.where(inside, 0.02, 0.6)
    found = audit(
        classes,
        greyness=np.where(grey, 1.0, 0.2),
        uniform_frame=np.zeros(600),
        jpeg_quality=np.where(png, np.nan, 85),
    )
    row = found.loc[("a", "property__greyness")]
    assert row["share"] == grey[inside].mean()
    assert row["association__flag"]
    assert found.loc[("a", "property__jpeg"), "share"] == 1 - png[inside].mean()
    assert found.loc[("a", "property__jpeg"), "association__flag"]
    frame = found.loc[("a", "property__uniform_frame")]
    assert frame["association__reason"]
    assert np.isnan(frame["association__effect"])
    assert np.isnan(found.loc[("a", "property__jpeg_quality"), "association__effect"])


def test_small_classes_failed_rows_and_old_results() -> None:
    classes = drawn({"a": 15, "b": 300})
    status = ["not_finite"] * 5 + ["ok"] * 310
    found = audit(classes, status, brightness=np.where(classes == "a", 0.9, 0.1))
    assert found.loc[("a", "property__brightness"), "images"] == 10
    assert not found["association__flag"].any()
    old = stored(classes)
    empty = find_exact(old, count_population(old, 10), GATES)
    assert (len(empty), list(empty)) == (0, list(COLUMNS))


@pytest.mark.parametrize("shape", ["equal", "spread", "tails", "ties"])
def test_nothing_from_chance(shape: str) -> None:
    """At most 1 % of 1,000 classes without a difference in level are flagged."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(20, 80, 1000)
    classes = np.repeat([f"c{n:04d}" for n in range(1000)], sizes)
    spread = np.repeat(rng.uniform(0.2, 3, 1000), sizes)
    count = sizes.sum()
    values = {
        "equal": rng.normal(0, 1, count),
        "spread": rng.normal(0, 1, count) * spread,
        "tails": np.clip(rng.standard_t(1, count) * spread, -30, 30),
        "ties": rng.integers(0, 3, count).astype(float),
    }[shape]
    results = stored(classes, sharpness=np.exp(values), greyness=(rng.random(count) < 0.2) * 1.0)
    found = find_exact(results, count_population(results, 2000), GATES)
    assert found["association__flag"].mean() <= 0.01
    graded = found[found["cue"] == "property__sharpness"]
    outside = (graded["association__low"] > 1).mean()
    assert 0.02 < outside < 0.08 or shape == "ties"


def test_bins_of_a_hundredth_change_nothing() -> None:
    rng = np.random.default_rng(5)
    classes = drawn({"a": 300, "b": 700})
    values = rng.normal(0.5, 0.1, 1000) + 0.04 * (classes == "a")
    found = audit(classes, contrast=values).loc[("a", "property__contrast"), "score_auc"]
    inside, outside = values[classes == "a"], values[classes == "b"]
    assert found == pytest.approx((inside[:, None] > outside).mean(), abs=0.005)


def test_rows_beside_those_of_scored_cues(tmp_path: Path) -> None:
    """Only on request, with verified flags and no claim of reliance; no other row changes."""
    names = ["a", "b", "c", "d"]
    labelled = labels(600, names)
    world = World(labelled).cue("leash", {"a": 0.6})
    uri = world.write(tmp_path / "out", {})
    rng = np.random.default_rng(0)
    for path in (tmp_path / "out" / "images").glob("*.parquet"):
        table = pq.read_table(path)
        dark = np.array(table["label"].to_pylist()) == "b"
        values = rng.beta(4, 4, table.num_rows) * np.where(dark, 0.5, 1)
        column = pa.array(values.astype(np.float32))
        pq.write_table(table.append_column(property_column("brightness"), column), path)
    found = Audit.from_results(uri, settings={"suspicions": False})
    every = found.rank(exact=True)
    flagged = every[every["association__flag"] & (every["association__basis"] == "exact")]
    assert ("b", "property__brightness") in set(zip(flagged["class"], flagged["cue"], strict=True))
    assert flagged["association__verified"].all()
    assert not every["probe_reliance__flag"].any()
    plain = found.rank()
    assert not plain["cue"].str.startswith("property__").any()
    kept = every[~every["cue"].str.startswith("property__")].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        kept[["class", "cue", "association__q"]], plain[["class", "cue", "association__q"]]
    )
