"""What the report holds, and what it must not hold."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.auditor import Audit
from pipeline.errors import UsageError
from pipeline.report import embed, site, words
from pipeline.report.choice import affordable, shares
from pipeline.report.contents import Limits, Report
from pipeline.report.gather import gather
from pipeline.report.site import build_report, write_report
from tests.conftest import DemoRun
from tests.jobs.command import legrad
from tests.reports import made_up


@pytest.fixture(scope="module")
def audit(demo_run: DemoRun) -> Audit:
    return Audit.from_results(demo_run.output)


@pytest.fixture(scope="module")
def report(audit: Audit) -> Report:
    return gather(audit, Limits(pages=4, each=2))


def everything(folder: Path) -> str:
    kinds = ("html", "js", "css")
    return "".join(p.read_text("utf-8") for kind in kinds for p in folder.rglob(f"*.{kind}"))


def test_what_produced_the_numbers_is_named(audit: Audit, report: Report) -> None:
    metadata = audit.results.run["metadata"]
    assert report.identity["weights"] == metadata["model"]["weights_sha256"][:16]
    assert [name for name, text in report.identity.items() if not text] == []


def test_report_of_a_run_shows_its_images(audit: Audit, report: Report, tmp_path: Path) -> None:
    first = write_report(report, tmp_path / "r")
    pair = next((tmp_path / "r" / "pairs").iterdir()).read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', pair, re.DOTALL)[1])
    assert report.identity["weights"] in first.read_text("utf-8")
    assert len(list((tmp_path / "r" / "classes").iterdir())) == len(audit.classes)
    assert any((tmp_path / "r" / "pictures").iterdir())
    assert {"cue", "class"} <= set(data["images"][0])
    again = build_report(audit, tmp_path / "r", Limits(pages=1, each=1))
    assert again == first
    flagged = int(audit.rank()["association__flag"].sum())
    assert len(list((tmp_path / "r" / "pairs").iterdir())) == max(flagged, 1)


def test_without_images_nothing_of_single_images_is_written(audit: Audit, tmp_path: Path) -> None:
    build_report(audit, tmp_path, Limits(images=False, pages=3))
    text = everything(tmp_path)
    assert not any((tmp_path / "pictures").iterdir())
    assert all(image_id not in text for image_id in audit.results.images(["label"]).index)
    assert '"images":[]' in text


def test_images_that_are_gone_leave_a_note(audit: Audit, tmp_path: Path) -> None:
    nowhere = replace(audit.results.origin, roots=())
    gone = replace(audit.results, runs=(replace(audit.results.runs[0], origin=nowhere),))
    build_report(replace(audit, results=gone), tmp_path, Limits(pages=1, each=1))
    assert "no picture" in everything(tmp_path)


def test_a_folder_with_other_files_is_left_alone(audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="-o"):
        build_report(audit, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_the_old_report_stays_until_the_new_one_can_be_written(
    audit: Audit, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(report, tmp_path)
    before = everything(tmp_path)

    def failing(*values: object) -> Report:
        raise UsageError("no model")

    monkeypatch.setattr(site, "gather", failing)
    with pytest.raises(UsageError, match="no model"):
        build_report(audit, tmp_path)
    assert everything(tmp_path) == before


def test_a_report_is_written_to_this_machine(audit: Audit) -> None:
    with pytest.raises(UsageError, match="s3://bucket/report"):
        build_report(audit, "s3://bucket/report")


def test_the_command_for_a_verdict_audits_the_same(demo_run: DemoRun, tmp_path: Path) -> None:
    verdicts, folder = str(tmp_path / "v.csv"), tmp_path / "r"
    done = legrad("report", demo_run.output, "-o", str(folder), "--verdicts", verdicts,
                  "--pages", "1", "--each", "1", "--set", "seed=3")  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = next((folder / "pairs").iterdir()).read_text("utf-8")
    words = f"legrad audit {demo_run.output} --verdicts {verdicts} --set seed=3 --verdict"
    assert words in page


@pytest.mark.slow
def test_a_thousand_classes_and_a_hundred_cues_stay_below_20_megabytes(tmp_path: Path) -> None:
    classes, cues, pages = 1000, 100, 200
    pictures = affordable(Limits(), classes * cues, pages, classes)
    each = shares(pages, 12, pictures)[-1]  # the weakest page's; the strongest may have all twelve
    names = [f"class number {n}" for n in range(classes)]
    report = made_up(names, [f"cue_{n}" for n in range(cues)], flagged=40, pages=pages, each=each)
    write_report(report, tmp_path)
    size = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert pictures >= 24
    assert 10e6 < size < 20e6


def test_hundred_classes_are_small(tmp_path: Path) -> None:
    names = [f"class number {n}" for n in range(100)]
    report = made_up(names, [f"cue_{n}" for n in range(100)], flagged=2, pages=2, each=1)
    write_report(report, tmp_path)
    assert (tmp_path / "assets" / "table.js").stat().st_size < 100 * 100 * 50
    sizes = [p.stat().st_size for p in (tmp_path / "classes").iterdir()]
    assert sum(sizes) / len(sizes) < 6500


def test_a_classifier_has_a_card(tmp_path: Path) -> None:
    report = made_up(["cat", "dog"], ["sky"], flagged=1, reliance=True)
    numbers = {"effect": 0.6, "low": 0.4, "high": 0.8, "q": 0.01, "flips": 0.79, "flips_low": 0.5}
    numbers |= {"flips_high": 0.9, "flips_images": 40, "taken": 0.53, "heat": 1.2}
    values = numbers | {"flag": True, "reason": "", "rival": "dog"}
    row = dict(report.pairs[0].row) | {f"model_reliance__{k}": v for k, v in values.items()}
    write_report(replace(report, pairs=[replace(report.pairs[0], row=row)]), tmp_path)
    (page,) = (tmp_path / "pairs").iterdir()
    text = page.read_text("utf-8").replace("\u00a0", " ")
    for said in ("Your classifier uses it", "60 %", "79 % of its decisions", "logits against"):
        assert said in text


def test_words_that_no_query_names_are_listed(tmp_path: Path) -> None:
    confirmed = {"class": "a", "word": "<b>fence", "effect": 6.2, "confirmed": True}
    confirmed |= {"share": 0.61, "share_elsewhere": 0.05, "presence": "measured"}
    look = {"class": "b", "word": "snow", "effect": 4.1, "confirmed": False}
    look |= {"share": math.nan, "share_elsewhere": math.nan, "presence": "not measurable"}
    thing = {"class": "a", "word": "unnamed 1", "also": "a <i>gate (0.41)", "kind": "thing"}
    thing = confirmed | thing | {"effect": math.nan, "picture": "data:image/webp;base64,AA=="}
    plain = {"kind": "cue", "picture": "", "on_class": True}
    found = [{**row, **plain} for row in (confirmed, look)] + [thing | {"on_class": False}]
    made = made_up(["a", "b"], ["watermark", "border"], flagged=1, pages=1, each=1)
    assert 'id="discovered"' not in write_report(made, tmp_path / "0").read_text("utf-8")
    text = write_report(replace(made, discovered=found), tmp_path / "1").read_text()
    section = text.split('id="discovered"')[1].split("</section>")[0]
    beside, on_class = section.split("<ul")[1:]
    assert "a &lt;i&gt;gate (0.41)" in beside
    assert "data:image/webp;base64,AA==" in beside
    assert "&lt;b&gt;fence" in on_class
    assert "61 %" in on_class
    assert "not measurable" in on_class


def test_json_cannot_end_its_script() -> None:
    hostile = "</script><!--\u2028&"
    text = embed.to_json({"name": hostile, "nothing": [math.nan, math.inf, 1.5]})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"name": hostile, "nothing": [None, None, 1.5]}


@pytest.mark.parametrize(
    ("pages", "most", "total", "expected"),
    [(0, 12, 100, []), (2, 12, 100, [12, 12]), (3, 12, 34, [7, 5, 5]), (3, 12, 0, [0, 0, 0])],
)
def test_pictures_are_shared_out(pages: int, most: int, total: int, expected: list[int]) -> None:
    assert shares(pages, most, total) == expected


def test_words() -> None:
    row = {"class": "fish", "share": 0.814, "share_elsewhere": 0.001}
    text = words.sentence(row, "water mark")
    assert all(part in text for part in ("81\u00a0%", "fish", "water mark", "<1\u00a0%"))
    assert "%" not in words.sentence(row | {"share": math.nan}, "x")
    assert re.fullmatch("groe-x-b-[0-9a-f]{8}", words.slug("Größe / ../x", "<b>"))
    assert re.fullmatch("[0-9a-f]{8}", words.slug("鳥"))
    assert len({words.slug(*pair) for pair in (("a b", "c"), ("a", "b c"), ("A b", "c"))}) == 3
    assert [words.odds(v) for v in (0.04, 9.96, 83.1, 2000.0, math.nan)] == [
        "0.0",
        "10.0",
        "83",
        ">1000",
        "n/a",
    ]
