"""Suspicions of a run: what is planted leads, nothing is flagged, and models that are not there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import Audit
from pipeline.audit import suspicion_scan
from pipeline.audit.directions import Directions
from pipeline.audit.scores import count_population
from pipeline.audit.suspicion_scan import class_sums, worth_a_look
from pipeline.errors import UsageError
from tests.audit.test_labels import world
from tests.conftest import DemoRun


def texts_of(demo_run: DemoRun) -> dict[str, int]:
    """The files of encoded words, and when each was written."""
    files = Path(demo_run.output, "_run").glob("texts-*.npy")
    return {file.name: file.stat().st_mtime_ns for file in files}


def test_planted_cues_lead_and_are_kept(demo_run: DemoRun) -> None:
    audit = Audit.from_results(demo_run.output, settings={"maps": False})
    frame = audit.suspicions()
    kept = texts_of(demo_run)
    assert kept
    again = Audit.from_results(demo_run.output, settings={"maps": False})
    pd.testing.assert_frame_equal(again.suspicions(), frame)
    assert texts_of(demo_run) == kept  # encoded once
    ranks = frame.set_index(["class", "cue"])["suspicion__rank"]
    for pair in (("frozen fish", "watermark"), ("bird", "border"), ("boat", "water")):
        assert ranks[pair] == 1
    assert (ranks[frame["cue"].isin(audit.decoys).to_numpy()] == 0).all()
    assert len(frame) == len(audit.classes) * (len(audit.cues) + len(audit.decoys))
    ranked = audit.rank()
    assert ranked["suspicion__effect"].notna().all()
    plain = Audit.from_results(demo_run.output, settings={"maps": False, "suspicions": False})
    assert "suspicion__effect" not in plain.rank()
    assert list(plain.rank()["association__flag"]) == list(ranked["association__flag"])
    with pytest.raises(UsageError, match="no suspicions"):
        plain.suspicions()


def test_sums_are_those_of_the_embeddings(demo_run: DemoRun) -> None:
    results = Audit.from_results(demo_run.output).results
    population = count_population(results, 100)
    texts = np.random.default_rng(0).normal(size=(5, 128))
    sums = class_sums(results, population, texts)
    table = results.dataset.to_table(columns=["label", "status", "embedding"]).to_pandas()
    table = table[(table["status"] == "ok") & table["label"].notna()]
    vectors = np.stack(table["embedding"].tolist()).astype(float)
    codes = table["label"].map(population.index).to_numpy()
    assert sums.images.tolist() == np.bincount(codes).tolist()
    assert sums.means[1] == pytest.approx(vectors[codes == 1].mean(axis=0), abs=1e-6)
    residual = vectors - sums.means[codes]
    expected = residual.T @ residual / (len(codes) - len(sums.images))
    assert sums.covariance == pytest.approx(expected, abs=1e-6)
    variance = (vectors[codes == 1] @ texts.T).var(axis=0)
    assert sums.variance[1] == pytest.approx(variance, rel=1e-4)
    count, total = sums.every
    assert count == len(vectors)
    assert total == pytest.approx(vectors.sum(axis=0), abs=1e-3)


def test_without_embeddings_everything_else_is_there(tmp_path: Path) -> None:
    audit = Audit.from_results(world().write(tmp_path / "out", {}))
    assert "embeddings" in audit.no_suspicions
    assert len(audit.rank()) == 12
    assert worth_a_look(audit.rank()).empty


def test_without_the_model_everything_else_is_there(
    demo_run: DemoRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> Directions:
        raise UsageError("the model cannot be loaded here: offline")

    monkeypatch.setattr(suspicion_scan, "run_directions", missing)
    audit = Audit.from_results(demo_run.output, settings={"maps": False})
    assert "offline" in audit.no_suspicions
    assert audit.rank()["association__flag"].any()


def test_worth_a_look_is_what_is_not_claimed_and_beyond_the_decoys() -> None:
    count = 40
    frame = pd.DataFrame(
        {
            "class": "a",
            "cue": [f"c{i}" for i in range(count)],
            "decoy": [i >= 10 for i in range(count)],
            "association__flag": [i == 1 for i in range(count)],
            "association__basis": ["labels" if i == 2 else "" for i in range(count)],
            "suspicion__effect": [9.0, 9, 9, 4, 2, *[0.0] * 5, *[5.0] * 30],
            "suspicion__rank": [1, 1, 1, 2, 3, *[4] * 5, *[0] * 30],
        }
    )
    assert list(worth_a_look(frame)["cue"]) == ["c0"]
    frame.loc[10:, "suspicion__effect"] = 0.0
    assert list(worth_a_look(frame)["cue"]) == ["c0", "c3"]
