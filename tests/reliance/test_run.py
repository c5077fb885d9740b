"""Reliance for a run on disk: claims in the ranking, resume, probe maps, and failures."""

import re
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest

from legrad.queries.query import NAME_PATTERN
from pipeline import Audit
from pipeline.audit.ranking import NOT_LISTED
from pipeline.config.audit_settings import AuditConfig
from pipeline.labelling import write_labelling
from pipeline.reliance.probe import FOLDS, groups
from pipeline.reliance.probe_maps import FOLD, probe_query
from pipeline.report.contents import Limits
from pipeline.report.site import build_report
from pipeline.report.words import slug
from pipeline.results import open_results
from tests.conftest import DemoRun
from tests.in_process import without_ray
from tests.jobs.command import legrad
from tests.viewer.client import client

GATES = {"edits": 6, "class_images": 10}


def chosen(work: Path) -> dict[str, Any]:
    """Small enough for the shared run; edits are kept beside it."""
    reliance = {"images": 30, "resamples": 40, "work": str(work)}
    return {"depth": "reliance", "gates": GATES, "reliance": reliance, "maps": False}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reliance") / "work"


@pytest.fixture(scope="module")
def audit(ray_session: None, demo_run: DemoRun, work: Path) -> Audit:
    """Its edits are made under Ray."""
    audit = Audit.from_results(demo_run.output, settings=chosen(work))
    audit.rank()
    return audit


@pytest.fixture(autouse=True)
def _without_ray() -> Iterator[None]:
    """Edits of other settings are made in this process, where torch is imported already."""
    with without_ray():
        yield


def of(frame: pd.DataFrame, cls: str, cue: str) -> pd.Series:
    return frame[(frame["class"] == cls) & (frame["cue"] == cue)].iloc[0]


def test_only_the_cue_that_decides_is_relied_on(audit: Audit) -> None:
    ranked = audit.rank()
    mark = of(ranked, "frozen fish", "watermark")
    assert mark["association__flag"]
    assert mark["probe_reliance__flag"]
    assert mark["probe_reliance__rival"] == "fresh fish"
    assert mark["probe_reliance__low"] > 0.25
    assert mark["probe_reliance__insertion"] > 0.25
    flagged = ranked[ranked["probe_reliance__flag"]]
    assert list(flagged["cue"]) == ["watermark"]
    others = ranked[ranked["association__flag"] & (ranked["cue"] != "watermark")]
    assert len(others)
    assert not others["probe_reliance__flag"].any()
    assert (others["probe_reliance__reason"] != "").all()
    assert not ranked["clip_reliance__flag"].any()
    assert audit.rank("probe_reliance").iloc[0]["cue"] == "watermark"
    assert audit.summary.flagged["probe_reliance"] == 1


def test_sets_of_labels(demo_run: DemoRun, tmp_path: Path) -> None:
    """Frozen fish and half of the birds are "cold" too, which is no rival of frozen fish."""
    images = open_results(demo_run.output).images(["label"]).reset_index()
    cold = (images["label"] == "frozen fish") | ((images["label"] == "bird") & (images.index % 2))
    both = zip(images["label"], cold, strict=True)
    images["label"] = [[label, "cold"] if also else [label] for label, also in both]
    table = str(tmp_path / "labels.parquet")
    images.rename(columns={"image_id": "key"}).to_parquet(table)
    own = chosen(tmp_path / "work")
    audit = Audit.from_results(demo_run.output, settings=own, class_labels=table)
    ranked = audit.rank()
    mark = of(ranked, "frozen fish", "watermark")
    assert mark["probe_reliance__flag"]
    assert mark["probe_reliance__rival"] == "fresh fish"
    assert mark["probe_reliance__low"] > 0.25
    (task,) = (
        t for t in audit.reliance.tasks.values() if (t.cls, t.cue) == ("frozen fish", "watermark")
    )
    assert set(task.other_labels.values()) == {frozenset({"cold"})}
    assert set(ranked.loc[ranked["probe_reliance__flag"], "cue"]) == {"watermark"}


def test_a_pair_that_only_labels_tell_of(demo_run: DemoRun, tmp_path: Path) -> None:
    """No cue counts as measured, as with the scores of most models on photographs."""
    unmeasured = chosen(tmp_path / "work")
    unmeasured["gates"] = GATES | {"separation": 1000, "labels": 10}
    plain = Audit.from_results(demo_run.output, settings=unmeasured)
    assert not plain.rank()["association__flag"].any()
    pairs = [("frozen fish", "watermark")]
    table = write_labelling(plain, tmp_path / "labels", pairs=pairs, labels=40).table
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    has = open_results(demo_run.output).images(["has_watermark"])["has_watermark"]
    rows["answer"] = np.where(has.loc[rows["image_id"]], "present", "absent")
    rows["who"], rows["when"] = "ann", "2026-11-30T12:00:00Z"
    rows.to_csv(table, index=False)
    audit = Audit.from_results(demo_run.output, settings=unmeasured, labels=[str(table)])
    mark = of(audit.rank(), "frozen fish", "watermark")
    assert (mark["association__basis"], mark["association__flag"]) == ("labels", True)
    assert mark["probe_reliance__flag"]
    (task,) = audit.reliance.tasks.values()
    assert has.loc[[row["image_id"] for row in task.images]].all()


def test_what_cannot_be_tested_says_so(audit: Audit) -> None:
    ranked = audit.rank()
    border = of(ranked, "bird", "border")
    assert border["probe_reliance__reason"].startswith("not testable: ")
    assert np.isnan(border["probe_reliance__effect"])
    untested = ranked[~ranked["association__flag"]]
    assert (untested["probe_reliance__reason"] == NOT_LISTED).all()
    assert (untested["clip_reliance__reason"] == NOT_LISTED).all()
    assert untested["probe_reliance__effect"].isna().all()
    reasons = ranked.loc[~ranked["probe_reliance__flag"], "probe_reliance__reason"]
    assert (reasons.str.len() > 0).all()


def test_edits_are_made_once(demo_run: DemoRun, work: Path, audit: Audit) -> None:
    files = sorted(work.glob("edits-*.parquet"))
    assert len(files) == len(audit.reliance.listed)
    messages: list[str] = []
    again = Audit.from_results(demo_run.output, settings=chosen(work), tell=messages.append)
    assert again.reliance.costs.done == len(files)
    pd.testing.assert_frame_equal(again.rank(), audit.rank())
    assert not any("edit" in message for message in messages)
    files[0].unlink()
    told: list[str] = []
    mended = Audit.from_results(demo_run.output, settings=chosen(work), tell=told.append)
    assert mended.reliance.costs.done == len(files) - 1
    pd.testing.assert_frame_equal(mended.rank(), audit.rank())
    assert sum("edited " in text and "(1 of 1)" in text for text in told) == 1


def test_fewer_pairs_from_the_same_edits(demo_run: DemoRun, work: Path, audit: Audit) -> None:
    """Other pairs are other texts: they are encoded although no edit is missing."""
    fewer = chosen(work)
    fewer["reliance"] |= {"pairs": 1}
    again = Audit.from_results(demo_run.output, settings=fewer)
    assert again.reliance.missing == {}
    ranked = again.rank()
    assert (ranked["probe_reliance__reason"] != NOT_LISTED).sum() == 1
    for column in ("probe_reliance__effect", "clip_reliance__effect"):
        pair = again.reliance.listed[0]
        assert of(ranked, pair.cls, pair.cue)[column] == pytest.approx(
            of(audit.rank(), pair.cls, pair.cue)[column], nan_ok=True
        )


def test_the_probe_looks_at_the_cue(audit: Audit) -> None:
    """Where the text "a fish" looks at the fish, and only on images that the probe did not see."""
    results = audit.reliance.probe_maps()
    name = probe_query("frozen fish")
    marked = "label = 'frozen fish' and has_watermark"
    rows = results.images(["label"], where=marked)
    ids, probe = results.maps(name, list(rows.index))
    there = ~np.isnan(probe).any(axis=(1, 2))
    assert there.sum() >= 3
    own = np.array(ids)[there]
    assert (groups(list(own)) % FOLDS == FOLD).all()
    mark = results.compare(name, "watermark", image_ids=list(own))["cosine"]
    fish = results.compare("frozen_fish", "watermark", image_ids=list(own))["cosine"]
    assert mark.median() > 2 * fish.median()
    again = audit.reliance.probe_maps()  # complete already: nothing is done, the same comes out
    np.testing.assert_array_equal(again.maps(name, list(own))[1], probe[there])


def test_every_edit_image_by_image(audit: Audit) -> None:
    frame = audit.reliance.counterfactual("frozen fish", "watermark")
    deleted = frame[(frame["kind"] == "deleted") & frame["counts"]]
    inserted = frame[(frame["kind"] == "inserted") & frame["counts"]]
    assert len(deleted) >= 6
    assert (deleted["cue_after"] < deleted["cue_before"]).all()
    assert (inserted["cue_after"] > inserted["cue_before"]).all()
    assert deleted["probe_change"].mean() < -0.5 < -abs(deleted["control_change"].mean())
    assert inserted["probe_change"].mean() > 0.5 > abs(inserted["control_change"].mean())
    with pytest.raises(KeyError, match="was not tested; tested are"):
        audit.reliance.counterfactual("tree", "watermark")


def test_names_of_probes_are_query_names_and_all_different() -> None:
    labels = [
        "frozen fish",
        "Frozen fish",
        "frozen-fish",
        "猫",
        "犬",
        "<script>",
        "x" * 90,
        "x" * 91,
    ]
    names = [probe_query(label) for label in labels]
    assert names[0] == "probe_frozen_fish"
    assert len(set(names)) == len(labels)
    assert all(re.fullmatch(NAME_PATTERN, name) for name in names)


def test_the_report_shows_the_edits(audit: Audit, tmp_path: Path) -> None:
    build_report(audit, tmp_path / "shown")
    pages = [page.read_text() for page in (tmp_path / "shown" / "pairs").glob("*.html")]
    mine = next(text for text in pages if "<title>frozen fish, watermark" in text)
    edits = mine[mine.index('id="edits"') : mine.index('<section class="plots">')]
    assert edits.count("data:image/webp") == 24  # four deletions, four insertions, three each
    assert "fresh fish" in edits
    changes = [int(text) for text in re.findall(r"deleted: <strong>([+-]\d+)%", edits)]
    assert len(changes) == 4
    assert max(changes) < -25  # every deletion costs the probe evidence
    build_report(audit, tmp_path / "bare", Limits(images=False))
    bare = "".join(page.read_text() for page in (tmp_path / "bare" / "pairs").glob("*.html"))
    assert "data:image" not in bare


def test_the_viewer_shows_the_edits(demo_run: DemoRun, work: Path) -> None:
    mine = AuditConfig.model_validate(chosen(work) | {"suspicions": False})
    with client(demo_run.output, settings=mine, read_only=True) as web:
        text = web.get(f"/pairs/{slug('frozen fish', 'watermark')}.html").text
    edits = text[text.index('id="edits"') : text.index('<section class="plots">')]
    assert edits.count("data:image/webp") == 24


def test_the_command(demo_run: DemoRun, work: Path, audit: Audit) -> None:
    values = ["gates.edits=6", "gates.class_images=10", "maps=false", "reliance.images=30"]
    values += ["reliance.resamples=40", f"reliance.work={work}"]
    sets = [part for value in values for part in ("--set", value)]
    cost = legrad("audit", demo_run.output, "--depth", "reliance", "--dry-run", *sets)
    assert cost.returncode == 0
    assert "only arithmetic is left" in cost.stdout
    fresh = legrad("audit", demo_run.output, "--dry-run", "--set", f"reliance.work={work}-other")
    assert "images to fetch again and to explain" in fresh.stdout
    shown = legrad("audit", demo_run.output, "--depth", "reliance", *sets)
    assert shown.returncode == 0, shown.stderr
    assert "Does it matter?" in shown.stdout
    assert "not testable" in shown.stdout
    assert "the probe recognises" in shown.stdout
    wrong = legrad("audit", demo_run.output, "--depth", "deep")
    assert wrong.returncode != 0
    assert "'association' or 'reliance'" in wrong.stderr
    plain = legrad("audit", demo_run.output, *sets)
    assert "Does it matter?" not in plain.stdout


def test_images_that_are_gone(demo_run: DemoRun, tmp_path: Path) -> None:
    out = Path(copytree(demo_run.output, tmp_path / "out"))
    manifest = out / "_run" / "manifest.json"
    data = str(Path(demo_run.config.source.uri[0]).parent)
    text = manifest.read_text()
    assert data in text
    manifest.write_text(text.replace(data, str(tmp_path / "gone")))
    ranked = Audit.from_results(str(out), settings=chosen(tmp_path / "work")).rank()
    reason = of(ranked, "frozen fish", "watermark")["probe_reliance__reason"]
    assert reason.startswith("not testable: 0 images with the cue could be edited")
    assert "no longer at" in reason
