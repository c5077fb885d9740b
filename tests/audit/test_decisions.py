"""Verdicts without a user name, and tables of the user's with empty cells."""

import getpass
import os
from pathlib import Path

import pandas as pd
import pytest

from pipeline import Audit
from pipeline.audit import ranking
from pipeline.audit.decisions import read_waivers
from pipeline.errors import UsageError
from tests.audit.worlds import World, labels


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    world = World(labels(400, ["a", "b"])).cue("mark", {"a": 0.6})
    return Audit.from_results(world.write(tmp_path_factory.mktemp("decisions") / "out", {}))


@pytest.mark.parametrize("error", [KeyError("uid not found: 4711"), OSError("no user name")])
def test_a_user_id_without_a_name(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    audit.annotate("a", "mark", "spurious")
    verdict = audit.pair("a", "mark").verdict
    assert verdict["verdict"] == "spurious"
    assert verdict["who"] == str(os.getuid())


def test_a_pair_is_looked_up_and_not_ranked_again(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = audit.rank().iloc[0]
    calls: list[str] = []
    rank = ranking.rank
    monkeypatch.setattr(ranking, "rank", lambda frame, by: calls.append(by) or rank(frame, by))
    fresh = Audit(audit.results, audit.settings, audit.verdicts)
    for cls in ("a", "b", "a"):
        finding = fresh.pair(cls, "mark").finding
        assert (finding["class"], finding["cue"]) == (cls, "mark")
    assert len(calls) == 1
    assert list(finding.index) == list(expected.index)


def write(path: Path, columns: dict[str, list[str | None]], ending: str) -> str:
    file = path / f"table.{ending}"
    frame = pd.DataFrame(columns)
    frame.to_csv(file, index=False) if ending == "csv" else frame.to_parquet(file)
    return str(file)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("empty", ["class", "cue", "reason", "expires"])
def test_a_waiver_with_an_empty_cell(tmp_path: Path, ending: str, empty: str) -> None:
    columns = {"class": "a", "cue": "mark", "reason": "known", "expires": "2030-01-01"}
    table = {name: [text, None if name == empty else "b"] for name, text in columns.items()}
    with pytest.raises(UsageError, match=f"line 3.*{empty}"):
        read_waivers(write(tmp_path, table, ending))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_prediction_or_an_example_with_an_empty_cell(
    audit: Audit, tmp_path: Path, ending: str
) -> None:
    said = {"image_id": ["w/000000", "w/000001"], "prediction": ["a", None]}
    with pytest.raises(UsageError, match=r"line 3.*prediction"):
        audit.predictions(write(tmp_path, said, ending))
    examples = {"image_id": ["w/000000", None], "cue": ["mark"] * 2, "present": ["yes", "no"]}
    settings = {"examples": write(tmp_path, examples, ending)}
    with pytest.raises(UsageError, match=r"line 3.*image_id"):
        Audit.from_results(audit.results.folder.uri, settings=settings).rank()
