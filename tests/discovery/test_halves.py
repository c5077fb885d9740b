"""The halves of a run, read as the whole is."""

import numpy as np
import pytest

from pipeline.audit.scores import batches, count_population
from pipeline.audit.suspicion_scan import class_sums
from pipeline.discovery.halves import HalfScores
from pipeline.schema import score_column
from tests.discovery.worlds import EmbeddedWorld


def test_halves_are_all_images_once() -> None:
    results = EmbeddedWorld({}, images=200).results
    ids = [
        set(pool)
        for confirming in (False, True)
        for batch in HalfScores(results, confirming).to_batches(["image_id"], batch_size=64)
        for pool in [batch["image_id"].to_pylist()]
    ]
    assert sum(map(len, ids)) == len(set().union(*ids)) == 200


def test_sums_of_a_half_count_its_images_alone() -> None:
    results = EmbeddedWorld({}, images=200).results
    population = count_population(results, 10)
    halves = [class_sums(HalfScores(results, half), population) for half in (False, True)]
    for sums in halves:
        count, total = sums.every
        assert count == sums.images.sum() < 200
        assert total == pytest.approx(sums.images @ sums.means, abs=1e-4)


def test_scores_are_products_with_the_embeddings() -> None:
    world = EmbeddedWorld({}, images=200)
    half = HalfScores(world.results, True, {"w3": world.words[3].astype(np.float32)})
    assert score_column("w3") in half.schema.names
    population = count_population(half, 10)
    for batch in batches(half, population, ["w3"], ["embedding"]):
        vectors = np.stack(batch.table["embedding"].to_pylist())
        assert batch.scores("w3") == pytest.approx(vectors @ world.words[3], abs=1e-4)
