"""``legrad discover`` on a run with a planted word, and without its model."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from legrad.queries.query import Role
from pipeline import Audit, open_results
from pipeline.config.loading import load_config
from pipeline.discovery import listed, search, stored_candidates
from pipeline.discovery.words import FEWEST_WORDS
from tests.discovery.worlds import EmbeddedWorld
from tests.jobs.command import legrad

OPTIONS = ("--top", "1", "--no-heat", "--set", "bootstrap=20", "--set", "bins=64")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    world = EmbeddedWorld({("birch", 17): 0.7}, cues=(3,), images=1500)
    monkeypatch.setattr(search, "run_directions", world.directions)
    return world.write(tmp_path / "out")


def test_the_table_the_file_and_python_agree(out: str, tmp_path: Path) -> None:
    table = str(tmp_path / "found.csv")
    done = legrad("discover", out, *OPTIONS, "--export", table)
    assert done.returncode == 0, done.stderr
    assert "w17" in done.stdout
    exported = pd.read_csv(table)
    assert exported.loc[0, ["class", "word", "confirmed"]].tolist() == ["birch", "w17", True]
    audit = Audit.from_results(out, settings={"bootstrap": 20, "bins": 64})
    frame = audit.discover(top=1, heat=False)
    assert list(exported["word"]) == list(frame["word"])
    assert 0 < len(audit.discover(top=1, decoys=True)) <= len(frame)


def test_the_last_discovery_is_kept_for_the_report(out: str) -> None:
    assert legrad("discover", out, *OPTIONS).returncode == 0
    results = open_results(out)
    kept = stored_candidates(results, 1500)
    assert kept.loc[0, ["class", "word"]].tolist() == ["birch", "w17"]
    assert listed(kept).loc[0, "word"] == "w17"
    assert stored_candidates(results, 1501).empty


def test_candidates_become_queries(out: str, tmp_path: Path) -> None:
    config = tmp_path / "found.yaml"
    found = legrad("discover", out, *OPTIONS)
    (command,) = re.findall("legrad discover .*", found.stdout)
    assert shlex.split(command)[2:7] == [out, *OPTIONS[3:]]
    assert "--top 1 --write-queries" in command
    done = legrad("discover", out, *OPTIONS, "--write-queries", str(config))
    assert done.returncode == 0, done.stderr
    assert f"legrad audit {out} --set bootstrap=20" in done.stdout
    assert "w17" in {query.name for query in load_config(config).queries}
    again = legrad("discover", out, *OPTIONS, "--write-queries", str(config))
    assert again.returncode == 2
    other = tmp_path / "other.yaml"
    unknown = legrad("discover", out, *OPTIONS, "--write-queries", str(other), "--word", "nothing")
    assert (unknown.returncode, other.exists()) == (2, False)
    assert "'nothing'" in unknown.stderr
    chosen = legrad("discover", out, *OPTIONS, "--write-queries", str(other), "--word", "w17")
    assert chosen.returncode == 0, chosen.stderr
    cues = [query.name for query in load_config(other).queries if query.role is Role.CUE]
    assert cues == ["w17"]


def test_a_dry_run_computes_nothing(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "run_directions", None)
    done = legrad("discover", out, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "1,500 images" in done.stdout


def test_a_vocabulary_that_is_too_small(out: str, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("a dog\n")
    done = legrad("discover", out, "--vocabulary", str(file))
    assert done.returncode == 2
    assert str(FEWEST_WORDS) in done.stderr


def test_a_word_needs_a_file_of_queries(out: str) -> None:
    done = legrad("discover", out, *OPTIONS, "--word", "w3")
    assert done.returncode == 2
    assert "--write-queries" in done.stderr
