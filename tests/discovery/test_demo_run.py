"""On a finished run: heat of what was found, and the run of a promotion joined to the first."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline import Audit, open_results
from pipeline.audit.directions import run_directions
from pipeline.config.audit_settings import AuditConfig
from pipeline.config.loading import load_config
from pipeline.discovery import Discovery, apart, with_heat
from pipeline.discovery.search import COLUMNS
from pipeline.starter.promotion import write_queries
from tests.conftest import DemoRun
from tests.in_process import run, without_ray

FOUND = (("apple", "a sticker"), ("house", "unnamed 1"), ("mushroom", "a mushroom"))


@pytest.fixture(scope="module")
def found(demo_run: DemoRun) -> Discovery:
    """Two overlays, one of them without a word, and an object, as if they had been found."""
    results = open_results(demo_run.output)
    directions = run_directions(results, lambda text: None, ["a timestamp"])
    queries = directions.queries
    lines = np.stack([queries["sticker"], directions.words[0], queries["mushroom"]])
    rows = [
        {"class": cls, "word": word, "kind": "thing" if "unnamed" in word else "cue"}
        for cls, word in FOUND
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).assign(confirmed=True)
    singles = zip(FOUND, lines.astype(np.float32), strict=True)
    named = {word: line for (_, word), line in singles}
    return Discovery(frame, frame.head(0), 3, (), named, 11, 260)


def test_overlays_lie_apart_from_the_object_and_its_name_lies_on_it(
    demo_run: DemoRun, found: Discovery
) -> None:
    results, said = open_results(demo_run.output), list[str]()
    with without_ray():
        with_maps = with_heat(results, AuditConfig(), found, said.append)
    beside, on_class = apart(with_maps.candidates)
    assert list(beside["word"]) == ["a sticker", "unnamed 1"]
    assert list(on_class["word"]) == ["a mushroom"]
    assert on_class["heat_on_class"].item() == pytest.approx(1, abs=0.05)
    assert beside["heat_on_class"].notna().all()


def test_without_the_images_there_is_no_heat(found: Discovery, demo_run: DemoRun) -> None:
    results = open_results(demo_run.output)
    (only,) = results.runs
    lost = {**only.manifest, "source": {**only.manifest["source"], "uri": ["/nowhere/x.tar"]}}
    moved = replace(results, runs=(replace(only, manifest=lost),))
    said: list[str] = []
    other = replace(found, candidates=found.candidates.head(1))
    assert with_heat(moved, AuditConfig(), other, said.append) is other
    assert said[-1].startswith("no heat")


def test_a_promotion_computes_its_queries_only_and_joins_the_first_run(
    demo_run: DemoRun, found: Discovery
) -> None:
    results = open_results(demo_run.output)
    file = demo_run.folder / "found.yaml"
    written = write_queries(results, found.candidates.head(2), file, found.directions)
    run(load_config(file))
    stored = open_results(written.output).dataset.schema.names
    assert [name for name in stored if name.startswith("score__")] == [
        "score__sticker_2",
        "score__unnamed_1",
    ]
    settings = {"discovered": list(written.cues), "suspicions": False}
    audit = Audit.from_results([demo_run.output, written.output], settings=settings)
    pairs = audit.rank().set_index(["cue", "class"])
    assert {"watermark", *written.cues} <= set(pairs.index.get_level_values("cue"))
    heat = pairs.loc["sticker_2"]["maps"]
    assert (heat > 0).any()
    first, again = (audit.densities(cue) for cue in ("sticker", "sticker_2"))
    assert len(first) == len(again)
    assert audit.summary.images == 260
