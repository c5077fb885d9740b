"""Places of heat: a cue in a corner is found there, objects of other shapes are none."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from numpy.typing import NDArray

from legrad.heatmaps.codec import encode_maps
from pipeline.config.audit_settings import AuditConfig
from pipeline.discovery import discover, discovery_costs, listed, search
from pipeline.discovery.place_maps import FEWEST_CLASSES, SampledMaps
from pipeline.discovery.places import Place, find_places
from pipeline.schema import OWN_LABEL, map_column, peak_column
from tests.discovery.worlds import CLASSES, WORDS, EmbeddedWorld

GRID, WIDTH, EACH = (12, 12), 8, 300
CORNER = (slice(9, 11), slice(8, 11))
NONE: NDArray[np.float64] = np.zeros((0, WIDTH))


def blobs(rng: np.random.Generator, count: int, spread: float, moves: float) -> NDArray[Any]:
    """(count, h, w) round objects near a common middle, each moved at random."""
    rows, columns = np.mgrid[: GRID[0], : GRID[1]]
    middle = 5.5 + moves * rng.normal(size=(2, count, 1, 1))
    return np.exp(-((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / (2 * spread**2))


def heat_of(
    rng: np.random.Generator, codes: NDArray[np.int64], corner: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(n, h, w) maps: an object whose size depends on the class, something elsewhere, grain."""
    heat = rng.gamma(1.0, 0.08, size=(len(codes), *GRID))
    for code in np.unique(codes):
        mine = codes == code
        heat[mine] += blobs(rng, int(mine.sum()), float(np.exp(rng.normal(1, 0.15))), 2.0)
    heat += 0.6 * blobs(rng, len(codes), 1.5, 5.0)
    heat[(corner, *CORNER)] += rng.uniform(0.4, 1.6, size=(int(corner.sum()), 1, 1))
    return heat.astype(np.float32)


def sampled(seed: int, share: float, classes: int = 8) -> tuple[SampledMaps, NDArray[np.bool_]]:
    """Maps in which the first class has a cue in a corner, and 5 % of the other images do."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(classes), EACH)
    corner = rng.random(len(codes)) < np.where(codes == 0, share, 0.05)
    heat = heat_of(rng, codes, corner)
    vectors = rng.normal(size=(len(codes), WIDTH))
    vectors[:, 0] += 5 * corner
    ids = np.array([f"{number}" for number in range(len(codes))], object)
    half = rng.random(len(codes)) < 0.5
    scaled = heat / heat.mean(axis=(1, 2), keepdims=True)
    return SampledMaps(scaled, codes, half, ids, vectors.astype(np.float32)), corner


def found(maps: SampledMaps) -> list[Place]:
    """Places that are unusual on both halves."""
    places = find_places(maps, np.eye(WIDTH), NONE)
    return [p for p in places if min(p.effect, p.effect_again) > search.WORTH_A_LOOK]


def test_a_cue_in_a_corner_is_found_where_it_is() -> None:
    for seed in range(4):
        maps, corner = sampled(seed, 0.6)
        (place,) = [place for place in found(maps) if place.code == 0]
        assert "bottom right" in place.name
        assert place.region[CORNER].mean() > 0.6
        assert place.region.sum() <= 14
        assert place.direction[0] > 0.9
        shown = [int(name) for name in place.clearest]
        assert (maps.codes[shown] == 0).all()
        assert corner[shown].mean() > 0.9


def test_objects_of_different_sizes_are_no_places() -> None:
    """No more than one in twenty classes."""
    listed_places = [place for seed in range(6) for place in found(sampled(seed, 0.05)[0])]
    assert len(listed_places) <= 2


def test_chance_on_one_half_is_not_repeated_on_the_other() -> None:
    maps, _ = sampled(1, 0.05)
    luck = (maps.codes == 3) & ~maps.again
    maps.heat[(luck, *CORNER)] += 2.0
    (place,) = [p for p in find_places(maps, np.eye(WIDTH), NONE) if p.code == 3]
    assert place.effect > 6
    assert place.effect_again < 2


def test_a_place_that_the_cues_explain_is_left_out() -> None:
    maps, _ = sampled(0, 0.6)
    cues = np.eye(WIDTH)[:1]
    named = find_places(maps, np.eye(WIDTH), cues)
    assert not [place for place in named if "bottom right" in place.name]


def with_maps(world: EmbeddedWorld, thing_in_corner: bool) -> Any:
    """Results of a world with a map of every image's own label."""
    codes = np.array([CLASSES.index(name) for name in world.table["label"].to_pylist()])
    corner = world.has_thing & thing_in_corner
    cells, peaks = encode_maps(heat_of(np.random.default_rng(5), codes, corner))
    raw = pa.array([cell.tobytes() for cell in cells], pa.binary(GRID[0] * GRID[1]))
    table = world.table.append_column(map_column(OWN_LABEL), raw)
    table = table.append_column(peak_column(OWN_LABEL), pa.array(peaks.astype(np.float32)))
    queries = world.results.queries
    return SimpleNamespace(dataset=ds.dataset(table), queries=queries, grid=GRID)


def test_a_place_is_tested_and_listed_like_a_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = EmbeddedWorld({}, unnamed={"cedar": 0.5}, objects=20.0)
    monkeypatch.setattr(search, "run_directions", world.directions)
    settings, words = AuditConfig(bootstrap=50), ["not read"] * WORDS
    results = with_maps(world, thing_in_corner=True)
    discovery = discover(results, settings, words, 3)
    places = discovery.candidates[discovery.candidates["kind"] == "place"]
    (place,) = places.to_dict(orient="records")
    assert (place["class"], place["found_by"], place["rank"]) == ("cedar", "maps", 1)
    assert "bottom right" in place["word"]
    assert place["confirmed"]
    assert place["share"] == pytest.approx(0.5, abs=0.06)
    assert place["word"] in set(listed(discovery.candidates)["word"])
    assert discovery.directions[place["word"]] @ world.thing > 0.75
    of_cedar = discovery.candidates[discovery.candidates["class"] == "cedar"]
    assert not ((of_cedar["kind"] == "thing") & of_cedar["confirmed"]).any()
    shown = [int(name.rpartition("/")[2]) for name in discovery.clearest[place["word"]]]
    assert world.has_thing[shown].mean() > 0.9
    costs = discovery_costs(results, settings, words)
    assert costs.class_maps == 1
    assert costs.things == discovery_costs(world.results, settings, words).things + 12


def test_few_classes_have_no_usual_departure() -> None:
    world = EmbeddedWorld({}, images=200)
    results = with_maps(world, thing_in_corner=False)
    population = search.population_of(results, AuditConfig())
    some = dict.fromkeys(range(FEWEST_CLASSES - 1), OWN_LABEL)
    assert SampledMaps.read(results, population, some, GRID) is None
    maps = SampledMaps.read(results, population, {**some, 3: OWN_LABEL}, GRID)
    assert maps is not None
    assert set(maps.codes) == {0, 1, 2, 3}
    assert not find_places(maps, np.eye(maps.vectors.shape[1]), np.zeros((0, 48)))
    assert maps.heat.mean(axis=(1, 2)) == pytest.approx(1, abs=1e-4)
