"""What is drawn for whom, and what the table and the page hold."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from pipeline import Audit
from pipeline.audit.label_design import ELSEWHERE
from pipeline.audit.label_groups import Design
from pipeline.errors import UsageError
from pipeline.labelling import write_labelling
from pipeline.labelling.tasks import choose_pairs, draw_tasks
from tests.audit.test_labels import world
from tests.jobs.command import legrad

HOSTILE = "</script><b>x"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = world()
    made.labels = [HOSTILE if label == "owl" else label for label in made.labels]
    return made.write(tmp_path_factory.mktemp("labelling") / "out", {"grass": "decoy"})


@pytest.fixture(scope="module")
def audit(out: str) -> Audit:
    return Audit.from_results(out)


def page_data(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert found is not None
    return json.loads(found[1])


def test_unverified_findings_come_first_and_never_decoys(audit: Audit) -> None:
    chosen = choose_pairs(audit, [], [])
    assert chosen[0] == ("dog", "frost")
    assert len(chosen) == 5
    assert "grass" not in {cue for _, cue in chosen}
    assert choose_pairs(audit, [("cat", "tag")], []) == [("cat", "tag")]
    named = choose_pairs(audit, [("cat", "tag")], ["tag"])
    assert named[0] == ("cat", "tag")
    assert {cue for _, cue in named} == {"tag"}
    assert len(set(named)) == len(named) >= 3
    with pytest.raises(UsageError, match="'wolf'"):
        choose_pairs(audit, [("wolf", "tag")], [])
    with pytest.raises(UsageError, match="'snow'"):
        choose_pairs(audit, [], ["snow"])


def test_every_beginning_holds_its_part_of_every_group(audit: Audit) -> None:
    pairs = [("dog", "frost"), ("cat", "frost"), ("cat", "tag")]
    tasks, design = draw_tasks(audit, pairs, 40, Design(0, {}))
    assert [task.cue for task in tasks] == sorted(
        (t.cue for t in tasks), key=["frost", "tag"].index
    )
    frost = [task for task in tasks if task.cue == "frost"]
    half = {m.group for task in frost[: len(frost) // 2] for m in task.memberships}
    assert half == {"dog", "cat", ELSEWHERE}
    counts = pd.Series([m.group for task in frost for m in task.memberships]).value_counts()
    assert counts["dog"] == counts["cat"] == 40
    assert counts[ELSEWHERE] > 40
    early = pd.Series([m.group for t in frost[: len(frost) // 2] for m in t.memberships])
    assert (early.value_counts() / counts).between(0.35, 0.9).all()
    assert set(design.groups) == {
        *(("frost", group) for group in ("dog", "cat", ELSEWHERE)),
        *(("tag", group) for group in ("cat", ELSEWHERE)),
    }
    assert all(0 < m.probability < 1 for task in tasks for m in task.memberships)


def test_the_page_is_one_file_that_shows_no_class(audit: Audit, tmp_path: Path) -> None:
    written = write_labelling(audit, tmp_path, pairs=[(HOSTILE, "tag")], labels=12)
    text = written.page.read_text()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert "http" not in re.sub(r'"(next|run)":"[^"]*"', "", text)
    shown = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL)
    assert "fox" not in shown
    assert HOSTILE not in text
    data = page_data(written.page)
    assert len(data["tasks"]) == written.tasks
    assert {group[0] for task in data["tasks"] for group in task["groups"]} == {HOSTILE, ELSEWHERE}
    assert written.unreadable == len(data["pictures"])  # this run has no source
    assert all(data["why"])


def test_answers_are_kept(audit: Audit, tmp_path: Path) -> None:
    first = write_labelling(audit, tmp_path, pairs=[("dog", "frost")], labels=10)
    rows = pd.read_csv(first.table, dtype=str, keep_default_na=False)
    rows.loc[:4, ["answer", "who", "when"]] = ["absent", "ann", "2026-01-01"]
    rows.to_csv(first.table, index=False)
    other = write_labelling(audit, tmp_path, pairs=[("cat", "tag")], labels=10)
    after = pd.read_csv(other.table, dtype=str, keep_default_na=False)
    assert (after["answer"] == "absent").sum() == 5
    assert other.answered == 0
    assert len(page_data(other.page)["others"]) == 5
    again = write_labelling(audit, tmp_path, pairs=[("dog", "frost")], labels=10)
    assert again.answered == rows.loc[:4, "image_id"].nunique()
    rows.loc[0, "answer"] = "perhaps"
    rows.to_csv(first.table, index=False)
    with pytest.raises(UsageError, match="perhaps"):
        write_labelling(audit, tmp_path, pairs=[("dog", "frost")], labels=10)


def test_answers_of_several_people_stay_apart(audit: Audit, tmp_path: Path) -> None:
    table = write_labelling(audit, tmp_path / "a", pairs=[("dog", "frost")], labels=10).table
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    some = rows[rows["image_id"] == rows.loc[0, "image_id"]]
    for who, answer, when in (("ann", "Present", "2026-01-02"), ("ben", "absent", "2026-01-01")):
        some.assign(answer=answer, who=who, when=when).to_csv(tmp_path / f"{who}.csv", index=False)
    nameless = some.assign(answer="cannot tell", who="", when="2026-01-03")
    nameless.to_csv(tmp_path / "eve.csv", index=False)
    files = [str(tmp_path / f"{who}.csv") for who in ("ann", "ben", "eve")]
    for _ in range(2):  # the second time, the folder's own table is read, too
        written = write_labelling(
            audit, tmp_path / "b", pairs=[("dog", "frost")], labels=10, answers=files
        )
        after = pd.read_csv(written.table, dtype=str, keep_default_na=False)
        said = after[after["answer"] != ""][["group", "answer", "who", "probability"]]
        expected = {
            (row.group, answer, who, row.probability)
            for row in some.itertuples()
            for answer, who in (("present", "ann"), ("absent", "ben"), ("cannot tell", "eve.csv"))
        }
        assert set(said.itertuples(index=False, name=None)) == expected
        assert len(said) == len(expected)
        assert written.answered == 1
        others = page_data(written.page)["others"]  # which the page saves as they are
        assert {row[6] for row in others} == {"ann", "ben"}
    both = Audit.from_results(audit.results.folder.uri, labels=(str(written.table),))
    assert set(both.agreement["who"]) | set(both.agreement["other"]) == {"ann", "ben"}


def test_a_folder_on_this_machine_is_needed(audit: Audit) -> None:
    with pytest.raises(UsageError, match="s3://bucket/labels"):
        write_labelling(audit, "s3://bucket/labels", pairs=[("dog", "frost")], labels=10)


def test_a_run_that_can_only_be_read(
    audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.labelling import labelling
    from pipeline.storage.location import Location

    def refused(self: Location, data: bytes) -> None:
        raise UsageError("read only")

    monkeypatch.setattr(Location, "write", refused)
    written = labelling.write_labelling(audit, tmp_path, pairs=[("dog", "frost")], labels=10)
    assert written.design_beside
    assert (tmp_path / "label_design.json").exists()


def test_the_command_says_what_comes_next(out: str, tmp_path: Path) -> None:
    done = legrad("label", out, "--pair", f"{HOSTILE},tag", "-n", "5", "-o", str(tmp_path / "l"))
    assert done.returncode == 0, done.stderr
    table = tmp_path / "l" / "labels.csv"
    assert f"legrad audit {out} --labels {table}" in done.stdout
    assert str(tmp_path / "l" / "label.html") in done.stdout
    mended = tmp_path / "mended.csv"
    frame = Audit.from_results(out).results.images(["label"])
    frame["label"] = frame["label"].replace({"dog": "wolf"})
    frame.rename_axis("key").to_csv(mended)
    place = tmp_path / "mended"
    done = legrad("label", out, "--pair", "wolf,tag", "-n", "5", "-o", str(place),
                  "--class-labels", str(mended))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"--class-labels {mended} --labels {place / 'labels.csv'}" in done.stdout
    page = page_data(place / "label.html")["next"]
    assert f"legrad audit {out} --class-labels {mended} --labels {place / 'labels.csv'}" in page
    audited = legrad("audit", out, "--class-labels", str(mended), "--set", "maps=false")
    assert f"legrad label {out} --class-labels {mended} --set maps=false" in audited.stdout
    more = world().write(tmp_path / "more", {"grass": "decoy"})
    done = legrad("label", out, more, "--cue", "tag", "-n", "5", "-o", str(tmp_path / "two"),
                  "--set", "seed=3")  # fmt: skip
    assert done.returncode == 0, done.stderr
    command = f"legrad audit {out} {more} --set seed=3 --labels {tmp_path / 'two' / 'labels.csv'}"
    assert command in done.stdout
    assert command in page_data(tmp_path / "two" / "label.html")["next"]
    wrong = legrad("label", out, "--pair", "dog")
    assert wrong.returncode == 2
    assert "CLASS,CUE" in wrong.stderr
