"""The gate of continuous integration."""

from datetime import date
from pathlib import Path

import pytest

from pipeline.audit.decisions import gate, read_waivers
from pipeline.errors import UsageError
from tests.conftest import DemoRun
from tests.jobs.command import legrad
from tests.reports import ranking

TODAY = date(2026, 11, 24)
HEAD = "class,cue,reason,expires\n"


def waivers(tmp_path: Path, text: str) -> str:
    path = tmp_path / "waivers.csv"
    path.write_text(HEAD + text)
    return str(path)


def test_flagged_pairs_fail_until_they_are_waived(tmp_path: Path) -> None:
    frame = ranking(["a", "b"], ["x", "y"], flagged=2)
    came = gate(frame, "flagged", [], TODAY)
    assert [(f.cls, f.cue) for f in came.failures] == [("a", "x"), ("b", "x")]
    text = "a,x,known,2026-11-24\nb,x,known,2026-11-23\na,y,known,2027-01-01\n"
    came = gate(frame, "flagged", read_waivers(waivers(tmp_path, text)), TODAY)
    assert [w.cls for w in came.waived] == ["a"]
    assert [f.expired.expires for f in came.failures if f.expired] == [date(2026, 11, 23)]
    assert [w.cue for w in came.unused] == ["y"]
    assert gate(frame, "probe_reliance", [], TODAY).passed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,x,,2027-01-01\n", "reason"),
        ("a,x,known,soon\n", "expected a date"),
        ("a,x,known,2027-01-01\na,x,again,2027-01-01\n", "waived twice"),
    ],
)
def test_waivers_that_say_too_little(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_waivers(waivers(tmp_path, text))


def test_unknown_claim() -> None:
    with pytest.raises(UsageError, match="expected one of flagged"):
        gate(ranking(["a"], ["x"], 0), "reliance", [])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--fail-on", "flaged"], "--fail-on flaged"),
        (["--waivers", "w.csv"], "--fail-on"),
        (["--fail-on", "flagged", "--waivers", "gone.csv"], "gone.csv"),
        (["--export", "pairs.txt"], "pairs.txt"),
        (["--predictions", "gone.csv"], "gone.csv"),
        (["--fail-on", "probe_reliance"], "--depth reliance"),
        (["--fail-on", "model_reliance:verified", "--depth", "reliance"], "--classifier"),
    ],
)
def test_faults_are_told_before_anything_is_computed(
    options: list[str], told: str, tmp_path: Path
) -> None:
    done = legrad("audit", "no-such-run", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "no-such-run" not in done.stderr


def test_command_fails_and_passes(demo_run: DemoRun, tmp_path: Path) -> None:
    strict = ["--set", "gates.odds_ratio=1", "--set", "gates.images=2", "--set", "maps=false"]
    bad = legrad("audit", demo_run.output, "--fail-on", "flagged", *strict)
    failed = [line for line in bad.stdout.splitlines() if line.startswith("FAILED")]
    assert bad.returncode == 1
    assert failed
    pairs = [line.removeprefix("FAILED").strip().partition(":")[0].split(", ") for line in failed]
    text = "".join(f"{cls},{cue},planted,2999-01-01\n" for cls, cue in pairs)
    place = waivers(tmp_path, text)
    good = legrad("audit", demo_run.output, "--fail-on", "flagged", "--waivers", place, *strict)
    assert good.returncode == 0, good.stdout + good.stderr
    assert f"{len(failed)} waived" in good.stdout
