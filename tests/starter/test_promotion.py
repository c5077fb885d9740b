"""What was found becomes a configuration that a run accepts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from legrad.queries.directions import read_vector
from legrad.queries.query import Role
from pipeline.config.loading import load_config
from pipeline.errors import UsageError
from pipeline.results import Results, open_results
from pipeline.starter.promotion import chosen, write_queries
from tests.discovery.worlds import EmbeddedWorld

FOUND = pd.DataFrame(
    {"class": ["ash", "ash", "elm"], "word": ["a fence", "a cue_3", "a fence"], "kind": "cue"}
)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return open_results(EmbeddedWorld({}, cues=(3,), images=20).write(tmp_path / "out"))


def test_the_configuration_has_the_runs_images_and_new_cues(
    results: Results, tmp_path: Path
) -> None:
    file = tmp_path / "found.yaml"
    written = write_queries(results, FOUND, file, {})
    assert written.cues == ("fence", "cue_3_2")  # the run has a query named cue_3
    config = load_config(file)
    cues = {query.name: query.prompts for query in config.queries if query.role is Role.CUE}
    assert cues == {"fence": ("a fence",), "cue_3_2": ("a cue_3",)}
    assert {query.name for query in config.queries} == set(cues)
    assert config.source.uri == tuple(results.run["source"]["uri"])
    assert (config.model.name, config.model.layers) == ("mini", 2)
    assert config.output == written.output != results.folder.uri
    with pytest.raises(UsageError, match="--force"):
        write_queries(results, FOUND, file, {})
    assert write_queries(results, FOUND[1:2], file, {}, force=True).cues == ("cue_3_2",)


def test_a_sample_by_a_table_of_labels_has_a_note(results: Results, tmp_path: Path) -> None:
    results.run["identity"]["source.sample"] = 5
    results.run["identity"]["source.labels"] = {"sha256": "0", "key": "key", "label": "label"}
    assert "source.labels" in write_queries(results, FOUND, tmp_path / "found.yaml", {}).notes[0]


def test_a_thing_becomes_a_vector(results: Results, tmp_path: Path) -> None:
    thing = pd.DataFrame({"class": ["elm"], "word": ["unnamed 3"], "kind": ["thing"]})
    direction = np.arange(4, dtype=np.float32)
    written = write_queries(results, thing, tmp_path / "found.yaml", {"unnamed 3": direction})
    (query,) = load_config(written.config).queries
    assert (query.name, query.prompts) == ("unnamed_3", ())
    assert query.vector is not None
    assert read_vector(query.vector).tolist() == direction.tolist()


def test_nothing_found_writes_nothing(results: Results, tmp_path: Path) -> None:
    file = tmp_path / "found.yaml"
    with pytest.raises(UsageError):
        write_queries(results, FOUND.head(0), file, {})
    assert not file.exists()


def test_words_are_chosen_by_name() -> None:
    assert list(chosen(FOUND, ["a fence"]).index) == [0, 2]
    with pytest.raises(UsageError, match="a fence"):
        chosen(FOUND, ["fence"])
