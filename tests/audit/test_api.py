"""Audit on a run on disk: frames, maps, verdicts, predictions, examples, the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from legrad.queries.query import Query, Role
from pipeline import Audit, open_results
from pipeline.audit.overview import model_caveats
from pipeline.errors import UsageError
from pipeline.runs.completeness import query_notes
from pipeline.runs.manifest import run_folder
from tests.audit.worlds import GRID, World, labels
from tests.discovery.worlds import EmbeddedWorld
from tests.jobs.command import legrad

pytestmark = pytest.mark.filterwarnings("error")
CLASSES = ["red fox", "dog", "cat", "<script>"]
COUNT = 1200


def world(seed: int = 0) -> World:
    """The fox has a tag in the lower right corner, where its own heat is; decoys are nowhere."""
    made = World(labels(COUNT, CLASSES, seed), columns={"site": ["A", "B"] * (COUNT // 2)})
    made.cue("tag", {"red fox": 0.7}, seed=seed).cue("grass", {}, elsewhere=0.3, seed=seed)
    made.cue("ruler", {}, elsewhere=0.0, seed=seed)
    rng = np.random.default_rng(seed)
    for name in ("red_fox", "dog"):
        made.scores[name] = rng.normal(0.2, 0.01, COUNT)
    made.maps = {name: rng.random((COUNT, *GRID)) for name in made.scores if name != "grass"}
    for name in ("tag", "red_fox"):
        made.maps[name][made.has["tag"], 3, 3] += 5.0
    return made


@pytest.fixture(scope="module")
def truth() -> World:
    return world()


@pytest.fixture(scope="module")
def out(truth: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("audit") / "out"
    return truth.write(path, {"ruler": "decoy"}, ["red_fox", "dog"])


@pytest.fixture(scope="module")
def audit(out: str) -> Audit:
    return Audit.from_results(out)


def test_the_ranking_has_every_claim_as_its_own_columns(audit: Audit) -> None:
    ranked = audit.rank()
    assert len(ranked) == len(CLASSES) * 2
    assert len(audit.rank(decoys=True)) == len(CLASSES) * 3
    first = ranked.iloc[0]
    assert (first["class"], first["cue"]) == ("red fox", "tag")
    assert first["association__flag"]
    assert first["association__reason"] == ""
    for claim in ("association", "clip_reliance", "probe_reliance"):
        for field in ("effect", "low", "high", "q", "flag", "reason"):
            assert f"{claim}__{field}" in ranked
    assert not ranked["probe_reliance__flag"].any()
    assert first["probe_reliance__reason"].startswith("not measured")
    assert list(audit.rank(flagged=True)["cue"]) == ["tag"]
    with pytest.raises(UsageError, match="expected one of association, clip_reliance"):
        audit.rank("joint")


def test_evidence_lies_where_the_maps_lie_together(audit: Audit) -> None:
    ranked = audit.rank(decoys=True).set_index(["class", "cue"])
    tag = ranked.loc[("red fox", "tag")]
    assert tag["overlap_low"] > 0
    assert tag["heat_on_cue_low"] > 1.5
    assert tag["overlap_rank"] == 1.0
    assert abs(ranked.loc[("red fox", "ruler"), "overlap_excess"]) < 0.15
    assert np.isnan(ranked.loc[("red fox", "grass"), "overlap_excess"])  # no maps of grass
    assert np.isnan(ranked.loc[("cat", "tag"), "overlap_excess"])  # no query of the cat
    quick = Audit.from_results(audit.results.folder.uri, settings={"maps": False})
    assert quick.rank()["overlap_excess"].isna().all()


def test_mean_and_difference_maps_are_those_of_the_images(audit: Audit, truth: World) -> None:
    ids, maps = open_results(audit.results.folder.uri).maps("tag")
    of = pd.Series(truth.labels, index=truth.ids)[ids].to_numpy()
    assert np.allclose(audit.mean_map("dog", "tag"), maps[of == "dog"].mean(axis=0), atol=1e-5)
    assert np.allclose(audit.mean_map(None, "tag"), maps.mean(axis=0), atol=1e-5)
    found = audit.difference_map("red fox", "tag")
    assert found.images == (of == "red fox").sum()
    assert found.differs.sum() == 1
    assert found.differs[3, 3]
    assert found.difference[3, 3] > 0
    with pytest.raises(KeyError, match="no maps of 'grass'"):
        audit.mean_map("dog", "grass")
    with pytest.raises(KeyError, match="no class 'wolf'"):
        audit.mean_map("wolf", "tag")
    fresh = Audit.from_results(audit.results.folder.uri)
    fresh.read_maps("tag")
    assert set(fresh._maps._sums) == {"tag"}


def test_images_of_a_pair(audit: Audit, truth: World) -> None:
    having = audit.images("red fox", "tag", present=True)
    expected = [
        i
        for i, (label, h) in enumerate(zip(truth.labels, truth.has["tag"], strict=True))
        if label == "red fox" and h
    ]
    assert set(having.index) == {truth.ids[i] for i in expected}
    assert having["score"].is_monotonic_decreasing
    assert having["class_score"].notna().all()
    assert len(audit.images("red fox", "tag", present=False, limit=3)) == 3
    by_id = audit.images("dog", "tag", sort="image_id")
    assert list(by_id.index) == sorted(by_id.index)
    with pytest.raises(UsageError, match="presence of ruler is not measured"):
        audit.images("dog", "ruler", present=True)
    with pytest.raises(UsageError, match="expected one of score"):
        audit.images("dog", "tag", sort="epsilon")


def test_a_pair_and_densities(audit: Audit, truth: World) -> None:
    pair = audit.pair("red fox", "tag")
    width = pair.densities["score"].diff().iloc[1]
    assert (pair.densities["in_class"].sum() * width) == pytest.approx(1, abs=1e-6)
    assert (pair.densities["elsewhere"].sum() * width) == pytest.approx(1, abs=1e-6)
    of = np.array(truth.labels) == "red fox"
    above = truth.scores["tag"][of] > pair.threshold
    assert (above == truth.has["tag"][of]).mean() > 0.99
    assert list(pair.beside["cue"]) == ["grass"]
    assert abs(pair.beside["phi_in_class"].iloc[0]) < 0.2
    dense = audit.densities("tag")
    assert set(dense["class"]) == set(CLASSES)
    with pytest.raises(KeyError, match="no cue 'snow'"):
        audit.densities("snow")


def test_verdicts_last_and_are_of_one_data_set(audit: Audit, out: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    mine = Audit.from_results(out, verdicts=str(file))
    mine.annotate("red fox", "tag", "spurious", note='a "studio" tag, I think', who="ann")
    mine.annotate("red fox", "tag", "core", who="ben")
    mine.annotate("<script>", "grass", "unsure")
    again = Audit.from_results(out, verdicts=str(file)).rank().set_index(["class", "cue"])
    assert again.loc[("red fox", "tag"), "verdict"] == "core"
    assert again.loc[("<script>", "grass"), "verdict"] == "unsure"
    other = world(1).write(tmp_path / "other", {"ruler": "decoy"}, alias="another")
    assert Audit.from_results(other, verdicts=str(file)).rank()["verdict"].isna().all()
    with pytest.raises(UsageError, match="expected one of core, spurious, unsure"):
        mine.annotate("dog", "tag", "bad")
    with pytest.raises(KeyError, match="no class"):
        mine.annotate("wolf", "tag", "core")
    assert audit.rank()["verdict"].isna().all()  # another file


def test_the_users_own_model(audit: Audit, truth: World, tmp_path: Path) -> None:
    """A model that says red fox wherever there is a tag."""
    said = np.where(truth.has["tag"], "red fox", "dog")
    file = tmp_path / "predictions.csv"
    pd.DataFrame({"image_id": truth.ids, "prediction": said}).to_csv(file, index=False)
    frame = audit.predictions(str(file)).set_index(["class", "cue"])
    fox = frame.loc[("red fox", "tag")]
    assert fox["accuracy_with"] > 0.98
    assert fox["accuracy_without"] < 0.02
    assert fox["low"] > 0.9
    assert fox["taken_with"] > 0.95
    assert fox["taken_without"] < 0.05
    assert frame.loc[("red fox", "grass"), "low"] < 0 < frame.loc[("red fox", "grass"), "high"]
    pd.DataFrame({"image_id": ["x"], "prediction": ["dog"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="none of its image_ids"):
        audit.predictions(str(tmp_path / "x.parquet"))
    (tmp_path / "bad.csv").write_text("id,label\n1,dog\n")
    with pytest.raises(UsageError, match="no column 'image_id'"):
        audit.predictions(str(tmp_path / "bad.csv"))
    numbers = pd.DataFrame({"image_id": truth.ids, "prediction": (said == "dog").astype(int)})
    numbers.to_csv(file, index=False)
    with pytest.raises(UsageError, match=r"found .[01]., expected labels such as"):
        audit.predictions(str(file))


def test_predictions_without_a_measured_cue(tmp_path: Path) -> None:
    flat = World(labels(200, CLASSES)).cue("haze", {}, elsewhere=0.0)
    audit = Audit.from_results(flat.write(tmp_path / "out", {}))
    pd.DataFrame({"image_id": flat.ids, "prediction": "dog"}).to_csv(tmp_path / "p.csv")
    with pytest.raises(UsageError, match="no cue's presence is measured"):
        audit.predictions(str(tmp_path / "p.csv"))


def test_thresholds_from_examples(truth: World, tmp_path: Path) -> None:
    blurred = world(2).cue("blur", {"dog": 0.8}, distance=3.2, shift=0.1, seed=5)
    blurred.cue("noise", {"dog": 0.8}, distance=0.1, shift=0.0, seed=6)
    out = blurred.write(tmp_path / "out", {"ruler": "decoy"})
    rows = [
        (blurred.ids[i], cue, str(bool(blurred.has[cue][i])))
        for cue in ("blur", "noise")
        for i in range(200)
    ]
    rows += [(blurred.ids[0], "grass", "yes")]
    table = pd.DataFrame(rows, columns=["image_id", "cue", "present"])
    table.to_csv(tmp_path / "examples.csv", index=False)
    assert not Audit.from_results(out).pair("dog", "blur").finding["association__flag"]
    taught = Audit.from_results(out, settings={"examples": str(tmp_path / "examples.csv")})
    assert taught.pair("dog", "blur").finding["association__flag"]
    told = {one.cue: one for one in taught.learned}
    assert told["blur"].balanced_accuracy > 0.85
    assert told["noise"].threshold is None
    assert "80% needed" in told["noise"].reason
    assert "1 labelled examples" in told["grass"].reason
    table["present"] = "perhaps"
    table.to_csv(tmp_path / "examples.csv", index=False)
    again = Audit.from_results(out, settings={"examples": str(tmp_path / "examples.csv")})
    with pytest.raises(UsageError, match="present is 'perhaps'"):
        again.rank()


def test_compare_says_what_is_new(audit: Audit, tmp_path: Path) -> None:
    cleaned = world()
    cleaned.cue("tag", {}, seed=9)
    newer = Audit.from_results(cleaned.write(tmp_path / "out", {"ruler": "decoy"}))
    changed = newer.compare(audit).iloc[0]
    assert (changed["class"], changed["cue"], changed["change"]) == ("red fox", "tag", "gone")
    assert changed["ratio"] < 0.5
    assert changed["p"] < 1e-3
    assert audit.compare(audit)["change"].isin(["kept", ""]).all()


def test_summary_says_what_was_left_out(audit: Audit) -> None:
    told = audit.summary
    assert told.images == COUNT
    assert told.flagged == {"association": 1, "clip_reliance": 0, "probe_reliance": 0}
    assert list(told.not_measured) == ["ruler"]
    assert told.check.flagged_pairs == 0
    assert told.check.floor == 1.0  # one finding and few decoys
    assert set(told.meanings) == set(told.flagged)


def test_the_drawn_worlds_model_is_doubted_elsewhere() -> None:
    (warning,) = model_caveats({"name": "mini"}, "photos")
    assert "drawn scenes only" in warning
    assert model_caveats({"name": "mini"}, "demo") == ()
    assert model_caveats({"name": "ViT-B-32"}, "photos") == ()


def test_names_are_checked_first(out: str) -> None:
    with pytest.raises(UsageError, match="decoys: no cue 'snow' in this run"):
        Audit.from_results(out, settings={"decoys": ["snow"]})
    with pytest.raises(UsageError, match="no column 'hospital'"):
        Audit.from_results(out, settings={"stratum": "hospital"}).rank()
    assert (
        Audit.from_results(out, settings={"stratum": "site"}).rank()["association__flag"].sum() == 1
    )


def test_a_run_without_cues_can_be_opened_for_a_discovery(tmp_path: Path) -> None:
    audit = Audit.from_results(EmbeddedWorld({}, images=60).write(tmp_path / "out"))
    with pytest.raises(UsageError, match=r"no query has the role cue.*legrad discover .*out"):
        audit.rank()


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_export(audit: Audit, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"pairs.{ending}"
    audit.export(str(file))
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[ending]
    frame = read(file)  # type: ignore[operator]
    assert len(frame) == len(CLASSES) * 3
    assert frame["association__flag"].sum() == 1
    with pytest.raises(UsageError, match="ending in"):
        audit.export(str(tmp_path / "pairs.xlsx"))


def test_the_command(out: str, tmp_path: Path) -> None:
    csv = tmp_path / "pairs.csv"
    done = legrad("audit", out, "--all", "--export", str(csv))
    assert done.returncode == 0, done.stderr
    assert "red fox" in done.stdout
    assert "<script>" in done.stdout
    assert "Not flagged, and why" in done.stdout
    assert len(pd.read_csv(csv)) == len(CLASSES) * 3
    wrong = legrad("audit", out, "--set", "gates.odds_ration=2")
    assert wrong.returncode == 2
    assert "did you mean 'odds_ratio'" in wrong.stderr
    strange = legrad("audit", out, "--verdict", "wolf", "tag", "core")
    assert strange.returncode == 2
    assert "no class 'wolf'" in strange.stderr


def test_the_command_records_a_verdict_and_reads_predictions(
    out: str, truth: World, tmp_path: Path
) -> None:
    verdicts, said = str(tmp_path / "mine.csv"), tmp_path / "predictions.csv"
    pair = ("--verdict", "red fox", "tag", "spurious", "--note", "a studio tag")
    done = legrad("audit", out, "--verdicts", verdicts, *pair)
    assert done.returncode == 0, done.stderr
    assert "spurious" in done.stdout
    (row,) = pd.read_csv(verdicts).to_dict("records")
    assert [row[name] for name in ("class", "cue", "verdict", "note")] == [*pair[1:4], pair[5]]
    told = np.where(truth.has["tag"], "red fox", "dog")
    pd.DataFrame({"image_id": truth.ids, "prediction": told}).to_csv(said, index=False)
    done = legrad("audit", out, "--verdicts", verdicts, "--predictions", str(said))
    assert done.returncode == 0, done.stderr
    assert "spurious" in done.stdout  # it is kept
    table = done.stdout[done.stdout.index("Your model") :]
    (line,) = (line for line in table.splitlines() if "red fox" in line and "tag" in line)
    assert line.split()[3:5] == ["100%", "0%"]


def test_a_run_without_labels_is_told_so(tmp_path: Path) -> None:
    nameless = World([None] * 100).cue("tag", {}, elsewhere=0.4)
    out = nameless.write(tmp_path / "out", {})
    done = legrad("audit", out)
    assert done.returncode == 0, done.stderr
    assert "No image has a label" in " ".join(done.stdout.split())


def test_a_decoy_is_a_role_and_stays_in_the_manifest() -> None:
    query = Query(name="ruler", role="decoy")
    assert json.loads(query.model_dump_json())["role"] == Role.DECOY
    assert Query.model_validate(query.model_dump(mode="json")) == query


@pytest.mark.parametrize("sets", [False, True])
def test_a_class_query_that_no_image_matches_is_told(tmp_path: Path, sets: bool) -> None:
    names = labels(300, ["cat", "dog"])
    made = World(names, sets=[[name] for name in names] if sets else ())
    made.cue("tag", {}, elsewhere=0.3).cue("ruler", {}, elsewhere=0.0)
    for name in ("cat", "wolf"):
        made.scores[name] = np.random.default_rng(1).normal(0.2, 0.01, 300)
    out = made.write(tmp_path / "out", {"ruler": "decoy"}, ["cat", "wolf"])
    audit = Audit.from_results(out)
    assert [note for note in audit.summary.caveats if "'wolf'" in note and "cat, dog" in note]
    (note,) = query_notes(run_folder(out), audit.results.queries)
    assert "'wolf'" in note
    assert "'cat'" not in note
