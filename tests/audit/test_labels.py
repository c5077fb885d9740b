"""People's labels decide their pairs, whatever the scores say, if the images were drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import Audit
from pipeline.audit.decisions import gate
from pipeline.audit.label_design import COLUMNS, ELSEWHERE, PICKED, Centring, ScoreStrata
from pipeline.audit.label_groups import DESIGN, LABELS, Design, DrawnGroup, LabelImages, read_labels
from pipeline.audit.scores import count_population
from pipeline.config.audit_settings import RelianceConfig
from pipeline.errors import UsageError
from pipeline.labelling import write_labelling
from pipeline.reliance.shortlist import Listed, tasks
from pipeline.results import open_results
from tests.audit.worlds import World, labels
from tests.jobs.command import legrad

CLASSES = ["red fox", "dog", "cat", "owl"]
COUNT = 2400


def world() -> World:
    """States of the tag overlap; frost has two states of something that is not frost."""
    made = World(labels(COUNT, CLASSES))
    made.cue("tag", {"red fox": 0.6}, distance=2.0).cue("frost", {"dog": 0.7})
    made.cue("grass", {}, elsewhere=0.3)
    made.has["frost"] = np.zeros(COUNT, bool)
    return made


@pytest.fixture(scope="module")
def truth() -> World:
    return world()


@pytest.fixture(scope="module")
def out(truth: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    return truth.write(tmp_path_factory.mktemp("labels") / "out", {})


PAIRS = [("red fox", "tag"), ("dog", "tag"), ("dog", "frost"), ("cat", "grass")]


def answer(truth: World, table: Path, who: str = "ann", wrong: float = 0.0) -> str:
    """Fill a table in from the truth."""
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    number = {name: row for row, name in enumerate(truth.ids)}
    rng = np.random.default_rng(0)
    errs = dict(zip(truth.ids, rng.random(len(truth.ids)) < wrong, strict=True))
    present = [
        truth.has[cue][number[name]] ^ errs[name]
        for cue, name in zip(rows["cue"], rows["image_id"], strict=True)
    ]
    rows["answer"] = np.where(present, "present", "absent")
    rows["who"], rows["when"] = who, "2026-11-29T12:00:00Z"
    target = table.with_name(f"{who}.csv")
    rows.to_csv(target, index=False)
    return str(target)


@pytest.fixture(scope="module")
def labelled(truth: World, out: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("drawn")
    written = write_labelling(Audit.from_results(out), folder, pairs=PAIRS, labels=60)
    return answer(truth, written.table)


def test_images_to_edit_are_those_in_which_people_see_the_cue(
    truth: World, out: str, labelled: str
) -> None:
    findings = Audit.from_results(out, labels=[labelled]).findings
    assert list(findings.answered) == ["tag"]  # grass has two states, frost is never seen
    tag = findings.presence.histograms.cues.index("tag")
    assert not findings.presence.measured[tag]
    chosen = findings.for_edits
    assert chosen.presence.measured[tag]
    threshold = findings.answered["tag"].threshold
    assert (chosen.presence.threshold[tag] == threshold).all()
    pair = [Listed("red fox", "tag", "dog")]
    (task,) = tasks(open_results(out), chosen, pair, RelianceConfig(images=500))
    images, targets = ({row["image_id"] for row in part} for part in (task.images, task.targets))
    has = dict(zip(truth.ids, truth.has["tag"], strict=True))
    scores = dict(zip(truth.ids, truth.scores["tag"], strict=True))
    answered = set(findings.answered["tag"].present.index)
    assert images <= answered
    assert len(images) > 20
    assert all(has[image] and scores[image] >= threshold - 0.01 for image in images)
    assert len(targets - answered) > 200
    assert not any(has[image] for image in targets & answered)


def test_answers_in_the_output_are_read_if_they_fit(truth: World, tmp_path: Path) -> None:
    out = truth.write(tmp_path / "out", {})
    written = write_labelling(Audit.from_results(out), tmp_path / "drawn", pairs=PAIRS, labels=40)
    rows = Path(answer(truth, written.table)).read_text()
    kept = tmp_path / "out" / "_run" / LABELS
    kept.write_text(rows)
    pair = Audit.from_results(out).rank().set_index(["class", "cue"]).loc[("red fox", "tag")]
    assert pair["association__basis"] == "labels"
    assert not Audit.from_results(out, labels=()).rank()["labels"].any()
    told: list[str] = []
    of_later_run = rows.splitlines()[1].replace(",tag,", ",fence,")
    kept.write_text(f"{rows}{of_later_run}\n")
    assert pair["labels"] > 0
    again = Audit.from_results(out, tell=told.append).rank().set_index(["class", "cue"])
    assert again.loc[("red fox", "tag"), "labels"] == pair["labels"]
    assert told == ["answers on cues that this run does not have are left out: fence"]
    kept.write_text(f"{rows.splitlines()[0]}\n{of_later_run}\n")
    assert not Audit.from_results(out).rank()["labels"].any()
    with pytest.raises(UsageError, match="'fence' is no cue of this run"):
        Audit.from_results(out, labels=[str(kept)]).rank()
    kept.write_text(rows.replace(truth.ids[0][:2], "??"))
    without = Audit.from_results(out, tell=told.append).rank()
    assert not without["labels"].any()
    assert any("in legrad view are left out: " in text for text in told)
    with pytest.raises(UsageError, match="is not an explained image of this run"):
        Audit.from_results(out, labels=[str(kept)]).rank()


def test_half_finished_labels_take_no_finding_away(out: str, labelled: str, tmp_path: Path) -> None:
    rows = pd.read_csv(labelled, dtype=str, keep_default_na=False)
    few = rows.groupby(["cue", "group"]).cumcount() < 15
    file = tmp_path / "few.csv"
    rows[few].to_csv(file, index=False)
    before = Audit.from_results(out).rank().set_index(["class", "cue"])
    after = Audit.from_results(out, labels=[str(file)]).rank().set_index(["class", "cue"])
    frost = after.loc[("dog", "frost")]
    assert frost["association__flag"]
    assert (frost["association__basis"], frost["association__verified"]) == ("two states", False)
    assert frost["labels"] == 15 > frost["labels_elsewhere"] > 0
    assert frost["association__low"] == before.loc[("dog", "frost"), "association__low"]
    assert "too few labels" in after.loc[("red fox", "tag"), "association__reason"]
    table = legrad("audit", out, "--labels", str(file)).stdout
    assert f"no, 15 + {frost['labels_elsewhere']} answers" in table
    assert "not enough: dog / frost has 15 answers in the class and" in table


def test_labels_find_what_scores_cannot_and_refute_what_they_mistake(
    truth: World, out: str, labelled: str
) -> None:
    before = Audit.from_results(out).rank().set_index(["class", "cue"])
    assert not before.loc[("red fox", "tag"), "association__flag"]
    mistaken = before.loc[("dog", "frost")]
    assert mistaken["association__flag"]
    assert (mistaken["association__basis"], mistaken["association__verified"]) == (
        "two states",
        False,
    )
    audit = Audit.from_results(out, labels=[labelled])
    after = audit.rank().set_index(["class", "cue"])
    tag, frost = after.loc[("red fox", "tag")], after.loc[("dog", "frost")]
    assert (tag["association__flag"], tag["association__basis"]) == (True, "labels")
    assert (frost["association__flag"], frost["association__basis"]) == (False, "labels")
    assert not after.loc[[("dog", "tag"), ("cat", "grass")], "association__flag"].any()
    of = np.array(truth.labels) == "red fox"
    gap = truth.has["tag"][of].mean() - truth.has["tag"][~of].mean()
    assert tag["association__difference_low"] < gap < tag["association__difference_high"]
    assert tag["labels"] == 60
    assert after.loc[("owl", "grass"), "labels"] == 0
    assert np.isnan(after.loc[("owl", "grass"), "association__difference_low"])
    assert audit.findings.labelled is not None
    assert (audit.findings.labelled.picked, audit.findings.labelled.unused) == (0, 0)


def test_a_stratum_leaves_pairs_that_labels_decide(out: str, labelled: str) -> None:
    """Images in which only people see the cue cannot be counted by stratum."""
    audit = Audit.from_results(out, labels=[labelled], settings={"stratum": "key"})
    with pytest.raises(UsageError, match="key has more than"):
        audit.rank()
    after = Audit.from_results(out, labels=[labelled], settings={"stratum": "shard"}).rank()
    tag = after.set_index(["class", "cue"]).loc[("red fox", "tag")]
    assert tag["association__flag"]
    assert np.isnan(tag["within_shard__low"])


def test_the_gate_may_ask_for_verified_findings_only(out: str, labelled: str) -> None:
    audit = Audit.from_results(out, labels=[labelled])
    failed = gate(audit.rank(), "association:verified", []).failures
    assert [(f.cls, f.cue) for f in failed] == [("red fox", "tag")]
    unverified = Audit.from_results(out).rank()
    assert gate(unverified, "flagged:verified", []).passed
    assert not gate(unverified, "flagged", []).passed
    with pytest.raises(UsageError, match="verified"):
        gate(unverified, "association:certain", [])


def test_picked_images_are_in_no_estimate(truth: World, out: str, labelled: str) -> None:
    rows = pd.read_csv(labelled, dtype=str, keep_default_na=False)
    of = [i for i, label in enumerate(truth.labels) if label == "cat" and truth.has["grass"][i]]
    picked = pd.DataFrame({"image_id": [truth.ids[i] for i in of], "cue": "grass"})
    picked = picked.assign(answer="present", who="ann", when="", stratum="", probability="")
    claimed = picked.assign(group="cat")  # as if they were of the sample
    frame = Audit.from_results(out, labels=[labelled]).findings.labelled
    target = Path(labelled).with_name("more.csv")
    for extra in (picked.assign(group=PICKED), claimed):
        pd.concat([rows, extra])[list(COLUMNS)].to_csv(target, index=False)
        again = Audit.from_results(out, labels=[str(target)]).findings.labelled
        assert frame is not None
        assert again is not None
        numbers = ["labels", "labels_elsewhere"]
        assert again.frame[numbers].equals(frame.frame[numbers])
        assert again.picked > 100
        moved = again.frame["share"] - frame.frame["share"]
        assert moved.abs().max() < 0.05


def test_a_longer_draw_continues_a_shorter_one(out: str, tmp_path: Path, truth: World) -> None:
    audit = Audit.from_results(out)
    short = write_labelling(audit, tmp_path / "a", pairs=PAIRS[:1], labels=10)
    shorter = pd.read_csv(short.table)[["image_id", "group"]]
    answer(truth, short.table).replace("ann.csv", "labels.csv")
    (tmp_path / "a" / "ann.csv").replace(short.table)
    long = write_labelling(audit, tmp_path / "a", pairs=PAIRS[:1], labels=30)
    longer = pd.read_csv(long.table, keep_default_na=False)
    assert set(map(tuple, shorter.to_numpy())) < set(
        map(tuple, longer[["image_id", "group"]].to_numpy())
    )
    assert long.answered == short.tasks
    assert (longer["answer"] != "").sum() >= len(shorter)
    stored = Design.read([audit.results.folder.root.child("_run", DESIGN)], 9)
    assert stored.seed == audit.settings.seed
    assert stored.groups["tag", "red fox"].drawn >= 30
    assert stored.groups["tag", ELSEWHERE].drawn > 30


def test_labels_of_another_run_and_too_few_labels(out: str, labelled: str, tmp_path: Path) -> None:
    rows = pd.read_csv(labelled, dtype=str, keep_default_na=False)
    file = tmp_path / "x.csv"
    rows.assign(image_id="strange").to_csv(file, index=False)
    with pytest.raises(UsageError, match="'strange'"):
        Audit.from_results(out, labels=[str(file)]).rank()
    rows.assign(cue="snow").to_csv(file, index=False)
    with pytest.raises(UsageError, match="'snow'"):
        Audit.from_results(out, labels=[str(file)]).rank()
    rows.assign(answer="").to_csv(file, index=False)
    with pytest.raises(UsageError, match="no image has an answer"):
        read_labels([str(file)])
    few = rows[(rows["cue"] == "tag")].groupby("group").head(8)
    few.to_csv(file, index=False)
    row = Audit.from_results(out, labels=[str(file)]).pair("red fox", "tag").finding
    assert not row["association__flag"]
    assert "20" in row["association__reason"]


def test_answers_behind_a_skipped_image_are_in_no_estimate(
    out: str, labelled: str, tmp_path: Path
) -> None:
    rows = pd.read_csv(labelled, dtype=str, keep_default_na=False)
    fox = rows.index[(rows["group"] == "red fox") & (rows["cue"] == "tag")]
    rows.loc[fox[40], "answer"] = ""
    file = tmp_path / "x.csv"
    rows.to_csv(file, index=False)
    audit = Audit.from_results(out, labels=[str(file)])
    found = audit.findings.labelled
    assert found is not None
    assert 10 < found.unused < 30
    used = found.frame.set_index(["class", "cue"]).loc[("red fox", "tag"), "labels"]
    assert used == 59 - found.unused
    rows.loc[fox[40], "answer"] = "cannot tell"
    rows.to_csv(file, index=False)
    again = Audit.from_results(out, labels=[str(file)]).findings.labelled
    assert again is not None
    assert again.unused == 0
    assert again.frame.set_index(["class", "cue"]).loc[("red fox", "tag"), "labels"] == 59


def test_discovered_cues_are_labelled_on_their_half(out: str) -> None:
    results = Audit.from_results(out).results
    population = count_population(results, 100)
    images = LabelImages.read(results, population, ["tag", "grass"], 0, frozenset(["tag"]))
    assert 0.4 < len(images.rows("tag", None)) / COUNT < 0.6
    assert len(images.rows("grass", None)) == COUNT
    queue = images.queue("tag", 1, ScoreStrata.of(images.scores["tag"][images.rows("tag", 1)]), 40)
    assert images.half[queue.rows].all()
    assert (images.codes[queue.rows] == 1).all()
    names = images.ids.take(queue.rows).to_pylist()
    assert images.find([*names, "nobody", names[0]]).tolist() == [
        *queue.rows.tolist(),
        -1,
        queue.rows[0],
    ]


def test_centring_without_spread_and_without_images() -> None:
    flat = Centring.of(np.ones(4), np.array([0, 0, 2, 2]))
    assert flat.centre(np.array([3.0]), np.array([2])).tolist() == [2.0]
    assert Centring.of(np.zeros(0), np.zeros(0, np.int64)).width == 1.0


def test_a_design_is_read_as_it_was_written(tmp_path: Path) -> None:
    from pipeline.storage.location import open_location

    strata = ScoreStrata((0.1 + 0.2, -1e-17), (3, 4, 5))
    design = Design(7, {}).drawing("tag", "a, b", strata, 5)
    design = design.drawing("tag", "a, b", ScoreStrata((), (12,)), 3)
    file = open_location(str(tmp_path / DESIGN))
    file.write(design.to_json())
    assert Design.read([file], 0) == design
    assert design.groups["tag", "a, b"].drawn == 5
    grown = design.drawing("tag", "a, b", ScoreStrata((), (13,)), 3)  # its run went on
    assert grown.groups["tag", "a, b"] == DrawnGroup(ScoreStrata((), (13,)), 3)
    file.write(design.to_json().replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(UsageError, match="version 2"):
        Design.read([file], 0)
    file.write(b"[]")
    with pytest.raises(UsageError, match="expected a design"):
        Design.read([file], 0)


def test_several_people_and_the_command(truth: World, out: str, labelled: str) -> None:
    other = answer(truth, Path(labelled), "ben", wrong=0.1)
    shown = legrad("audit", out, "--labels", labelled, "--labels", other)
    assert shown.returncode == 0, shown.stderr
    agreed = [line for line in shown.stdout.splitlines() if line.startswith("agreement: tag")]
    assert len(agreed) == 1
    assert "ann and ben" in agreed[0]
    kappa = float(agreed[0].rpartition(" ")[2])
    assert 0.5 < kappa < 0.95
    assert shown.stdout.rstrip().splitlines()[-1].strip() == (
        f"legrad label {out} --labels {labelled} --labels {other}"
    )
    audit = Audit.from_results(out, labels=[labelled, other])
    assert set(audit.agreement["cue"]) == {"tag", "frost", "grass"}
    mine = replace(audit, label_files=())
    assert mine.labels is None
    assert mine.agreement.empty
