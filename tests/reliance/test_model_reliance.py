"""Claim C: what a classifier loses when a cue is deleted, by numbers and for a run on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from legrad.preprocess import Preprocess
from pipeline import Audit, open_results
from pipeline.audit.ranking import NO_CLASSIFIER
from pipeline.config import ClassifierConfig, Gates, RunConfig
from pipeline.config.loading import validated
from pipeline.errors import UsageError
from pipeline.reliance.classifier_edits import positions
from pipeline.reliance.edits import Deletion, Insertion
from pipeline.reliance.model_claim import Change, Shares, flips, logit_share, reason, taken
from tests.classifiers import fitted_classifier
from tests.conftest import DemoRun
from tests.in_process import run, without_ray
from tests.jobs.command import legrad
from tests.reliance.test_run import chosen, of

FILLS = 2


def test_positions_of_pixels() -> None:
    whole = Preprocess((8, 8))
    rows, columns = positions(whole, whole, (100, 50))
    assert rows.tolist() == columns.tolist() == list(range(8))
    cropped = Preprocess((4, 4), "center_crop")  # of 100 x 50 the middle 50 columns
    rows, columns = positions(cropped, whole, (100, 50))
    assert rows.tolist() == [1, 3, 5, 7]
    assert columns.tolist() == [2, 3, 4, 5]
    rows, columns = positions(whole, cropped, (100, 50))
    assert columns.tolist() == [-1, -1, 0, 1, 2, 3, -1, -1]


def deletion(
    count: int, effect: float, seed: int = 0, noise: float = 1.0, mean: float = 4.0
) -> Deletion:
    """Logits (n, 2): deletion takes ``effect`` from the first, the control takes nothing."""
    rng = np.random.default_rng(seed)
    before = np.stack([rng.normal(mean, 1, count), np.zeros(count)], axis=1)
    control = before + rng.normal(0, noise, (FILLS, count, 2))
    without = before + rng.normal(0, noise, (FILLS, count, 2))
    without[..., 0] -= effect
    names = tuple(map(str, range(count)))
    return Deletion(names, *(x.astype(np.float32) for x in (before, without, control)))


def shares(in_class: float = 0.9, in_rival: float = 0.1, gap: float = 8.0) -> Shares:
    rng = np.random.default_rng(9)
    own, other = rng.normal(gap / 2, 1, 400), rng.normal(-gap / 2, 1, 400)
    return Shares(in_class, in_rival, 400, 400, own, other)


def test_the_share_of_the_gap() -> None:
    seen = logit_share(deletion(200, 4.0), 0, 1, shares())
    assert seen.effect == pytest.approx(0.8 * 4 / 8, abs=0.03)
    assert seen.low < 0.4 < seen.high
    assert seen.agree
    covered = [logit_share(deletion(50, 4.0, seed), 0, 1, shares()) for seed in range(200)]
    assert np.mean([s.low < 0.4 < s.high for s in covered]) > 0.9
    nothing = [logit_share(deletion(50, 0.0, seed), 0, 1, shares()) for seed in range(200)]
    assert np.mean([s.low > 0 for s in nothing]) < 0.06


def test_flips_against_the_control() -> None:
    seen = flips(deletion(200, 6.0), 0)
    assert seen.low > 0.7
    assert flips(deletion(200, 0.0), 0).effect == pytest.approx(0, abs=0.02)
    none = flips(deletion(60, 0.0, noise=0.0), 0)
    assert none.effect == 0
    assert none.low < 0 < none.high
    assert flips(deletion(60, 0.0, mean=-4), 0) == Change()  # never called so


def test_what_is_taken_for_the_class() -> None:
    before = np.tile(np.float32([0, 3]), (50, 1))
    inserted = np.tile(np.float32([5, 3]), (50, 1))
    names = tuple(map(str, range(50)))
    appeared = np.arange(50) < 40
    seen = taken(Insertion(names, before, inserted, before), appeared, 0)
    assert (seen.effect, seen.images) == (1.0, 40)
    assert seen.low > 0.85


def test_gates() -> None:
    gates, told = Gates(edits=30), (0.99, 0.98)
    strong, weak = (
        Change(0.5, 0.4, 0.6, 100, (0.5, 0.5)),
        Change(0.01, -0.01, 0.03, 100, (0.0, 0.0)),
    )
    assert reason(strong, weak, told, gates) == reason(weak, strong, told, gates) == ""
    assert "2% needed" in reason(weak, weak, told, gates)
    assert "hardly tells" in reason(strong, strong, (0.6, 0.5), gates)
    opposed = Change(0.5, 0.4, 0.6, 100, (1.2, -0.2))
    assert "fills disagree" in reason(opposed, weak, told, gates)
    few = Change(0.5, 0.4, 0.6, 10, (0.5, 0.5))
    assert "decisions needs 30" in reason(weak, few, told, gates)
    unknown = Change(np.nan, np.nan, np.nan, 100, (0.0, 0.0))
    assert "nan" not in reason(unknown, weak, told, gates)


@pytest.fixture(scope="module")
def classifier_run(demo_run: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("classifier")
    model = fitted_classifier(open_results(demo_run.output), folder / "model")
    data: dict[str, Any] = {
        "model": {"kind": "classifier", "name": model},
        "source": demo_run.config.source.model_dump(exclude_defaults=True),
        "output": str(folder / "out"),
        "store": {"maps": "predicted", "properties": False},
        "runtime": {"actors": 1, "threads_per_actor": 1},
    }
    config = validated(RunConfig, data, "test")
    assert isinstance(config.model, ClassifierConfig)
    run(config)
    return config.output


def test_a_run_stores_logits_predictions_and_their_maps(
    demo_run: DemoRun, classifier_run: str
) -> None:
    results = open_results(classifier_run)
    frame = results.images(["label", "predicted_label"], where="status = 'ok'")
    assert (frame["label"] == frame["predicted_label"]).mean() > 0.8
    scores = results.scores()
    labels = {query.name: query.label for query in results.queries}
    assert list(scores) == list(labels)
    assert all(name.startswith("logit_") for name in labels)
    best = scores.loc[frame.index].idxmax(axis=1).map(labels)
    assert (best == frame["predicted_label"]).all()
    for query in results.queries:
        ids, maps = results.maps(query.name)
        kept = ids[~np.isnan(maps).any(axis=(1, 2))]
        assert set(frame.loc[kept, "predicted_label"]) <= {query.label}
    ids, of_predicted = results.maps("predicted", frame.index)
    for query in results.queries:
        chosen = np.asarray(frame["predicted_label"] == query.label)
        np.testing.assert_array_equal(
            of_predicted[chosen], results.maps(query.name, ids)[1][chosen]
        )
    joined = open_results([demo_run.output, classifier_run])
    assert {"watermark", "logit_boat"} <= set(joined.scores())
    with pytest.raises(UsageError, match=r"classifier.*legrad audit OUT --classifier"):
        Audit.from_results(classifier_run).rank()


def test_the_classifier_uses_the_cue_that_decides(
    ray_session: None, demo_run: DemoRun, classifier_run: str, tmp_path: Path
) -> None:
    settings = chosen(tmp_path / "work") | {"classifier": classifier_run}
    audit = Audit.from_results(demo_run.output, settings=settings)
    with without_ray():  # only the classifier sees the edits under Ray
        assert audit.reliance.pairs
    ranked = audit.rank("model_reliance")
    mark = of(ranked, "frozen fish", "watermark")
    assert mark["model_reliance__flag"]
    assert mark["model_reliance__rival"] == "fresh fish"
    assert mark["model_reliance__low"] > 0.25
    assert mark["model_reliance__flips"] > 0.5
    assert list(ranked.loc[ranked["model_reliance__flag"], "cue"]) == ["watermark"]
    border = of(ranked, "bird", "border")
    assert border["model_reliance__reason"].startswith("not testable: ")
    assert audit.summary.flagged["model_reliance"] == 1
    files = sorted((tmp_path / "work").glob("logits-*.parquet"))
    assert len(files) == len(audit.reliance.listed)
    told: list[str] = []
    again = Audit.from_results(demo_run.output, settings=settings, tell=told.append)
    pd.testing.assert_frame_equal(again.rank(), audit.rank())
    assert not any("edit" in text for text in told)
    command = [demo_run.output, "--classifier", classifier_run, "--fail-on", "model_reliance"]
    sets = [f"--set=reliance.work={tmp_path / 'work'}", "--set=gates.edits=6"]
    sets += ["--set=gates.class_images=10", "--set=reliance.images=30", "--set=maps=false"]
    done = legrad("audit", *command, *sets, "--set=reliance.resamples=40")
    assert done.returncode == 1
    assert "Your classifier" in done.stdout
    assert "frozen fish, watermark: flagged for model_reliance" in done.stdout


def test_without_a_classifier(demo_run: DemoRun, tmp_path: Path) -> None:
    audit = Audit.from_results(demo_run.output, settings={"maps": False, "suspicions": False})
    assert (audit.rank()["model_reliance__reason"] == NO_CLASSIFIER).all()
    assert "model_reliance" not in audit.summary.meanings
    with pytest.raises(UsageError, match="kind: classifier"):
        Audit.from_results(demo_run.output, settings={"classifier": demo_run.output}).rank()
