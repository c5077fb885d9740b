"""Find cues that no query names: from a vocabulary, on one half of the images, tested on the other.

Embeddings are read in passes over the run, whose number does not depend on the number of words; so
are the class's own maps, a few columns at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.audit.directions import Directions, run_directions
from pipeline.audit.inference import Array
from pipeline.audit.names import class_maps
from pipeline.audit.scores import Population, count_population
from pipeline.audit.suspicion_scan import EmbeddingSums, class_sums
from pipeline.config import queries_by_label
from pipeline.config.audit_settings import AuditConfig
from pipeline.discovery.confirm import ONLY_HERE, PairOfWord, confirm
from pipeline.discovery.halves import HalfScores
from pipeline.discovery.places import TOP as PLACES
from pipeline.discovery.places import Place, read_places, unnamed_frame
from pipeline.discovery.scan import scan
from pipeline.discovery.shortlist import MOST_DECOYS, MOST_PAIRS, Shortlist
from pipeline.discovery.things import MOST_THINGS, Thing, find_things
from pipeline.discovery.things import TOP as THINGS
from pipeline.discovery.words import FEWEST_WORDS
from pipeline.errors import UsageError, counted
from pipeline.results.results import Results
from pipeline.schema import EMBEDDING

HEAT_IMAGES = 50
"""Images of a class whose maps are computed, divided among what was found for it."""
TOP = 5
"""Words of each scan that are tested for each class."""
BINS = 128
"""Bins of a word's histogram at most, because hundreds of words are fitted."""
WORTH_A_LOOK, FIRST = 3.0, 3
"""Effect on both halves from which one of the first words of a class is worth a look."""
COLUMNS = (
    "class",
    "word",
    "kind",
    "rank",
    "also",
    "found_by",
    "effect",
    "effect_again",
    "probe_effect",
    "probe_score",
    "likeness",
    "confirmed",
    "reason",
    "images",
    "presence",
    "share",
    "share_elsewhere",
    "odds_ratio",
    "odds_low",
    "odds_high",
    "q",
    "heat_on_class",
    "picture",
)


@dataclass(frozen=True)
class Discovery:
    """Candidates and decoys of a discovery.

    Attributes:
        candidates: one row per class and word that stands for a group of words, confirmed ones
            first: see `Audit.discover`.
        decoys: the same for words drawn at random from the vocabulary, which got the same test.
        words: number of words that the model tells apart.
        named: words that repeat a cue which a query names already.
        directions: word, or name of a thing or place -> (E,) the direction that was tested.
        classes: number of classes that were scanned.
        images: labelled images of both halves.
        clearest: name of a place -> ids of the images with the most heat in it.
    """

    candidates: pd.DataFrame
    decoys: pd.DataFrame
    words: int
    named: tuple[str, ...]
    directions: Mapping[str, NDArray[np.float32]]
    classes: int
    images: int
    clearest: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def discover(
    results: Results,
    settings: AuditConfig,
    words: Sequence[str],
    top: int = TOP,
    tell: Callable[[str], None] = lambda text: None,
) -> Discovery:
    """Encode the words, scan, shortlist and test.

    Args:
        settings: gates of the audit, its seed, and the ridge of its probe.
        words: the vocabulary, see `pipeline.discovery.words.words`.
        top: words of each scan that are tested for each class.
        tell: called with messages about long steps.

    Raises:
        UsageError: the run has no embeddings or fewer than two classes, or its model cannot be
            loaded here, or tells too few words apart.
    """
    population = population_of(results, settings)
    directions = run_directions(results, tell, words)
    if len(directions.phrases) < FEWEST_WORDS:
        raise UsageError(
            f"the model tells {len(directions.phrases)} words of the vocabulary apart, "
            f"{FEWEST_WORDS} needed"
        )
    return find_words(results, population, directions, settings, top, tell)


def find_words(
    results: Results,
    population: Population,
    directions: Directions,
    settings: AuditConfig,
    top: int = TOP,
    tell: Callable[[str], None] = lambda text: None,
) -> Discovery:
    """Scan, shortlist and test, once the words are encoded; see `discover`."""
    tell("summing the embeddings of each half")
    found, again = (
        class_sums(HalfScores(results, confirming), population) for confirming in (False, True)
    )
    texts = _class_texts(results, population, directions)
    ridge = settings.reliance.ridge
    first, second = (scan(sums, texts, directions.words, ridge) for sums in (found, again))
    listed = Shortlist(results, population, directions, found, first, top)
    pairs = listed.pairs()
    if not pairs:
        raise UsageError(
            "no word is left to test: no class has images in the first half, or every word is the "
            "name of a class or repeats a cue"
        )
    half = HalfScores(results, False)
    places = read_places(results, population, found, ridge, listed.of_cues)

    def known(code: int) -> Array:
        of_places = [place.direction for place in places if place.code == code]
        return np.vstack([listed.words_in(pairs, code), *of_places])

    sizes = _of_half(population, found)
    things: list[Thing | Place] = [
        *places,
        *find_things(half, sizes, found, ridge, listed.of_cues, known, settings.seed),
    ]
    decoys = listed.decoys(pairs, settings.seed)
    tell(
        f"testing {len(pairs)} words of classes, {len(things)} things and places without a word "
        f"and {len(decoys)} decoys on the other half"
    )
    tried = listed.directions(pairs, decoys)
    tried |= {thing.name: thing.direction.astype(np.float32) for thing in things}
    of_things = [PairOfWord(thing.code, thing.name, has_word=False) for thing in things]
    tested = confirm(
        HalfScores(results, True, tried),
        _of_half(population, again),
        [*(pair.candidate for pair in pairs), *of_things, *decoys],
        settings.model_copy(update={"bins": min(settings.bins, BINS)}),
    ).rename(columns={name: f"odds_{name}" for name in ("low", "high")} | {"effect": "odds_ratio"})
    unnamed = unnamed_frame(
        things, population.classes, listed.likenesses, directions.phrases, found.covariance
    )
    frame = pd.concat([listed.frame(pairs, second), unnamed], ignore_index=True).join(tested)
    frame = frame.sort_values(["confirmed", "effect"], ascending=False, ignore_index=True)
    of_decoys = pd.DataFrame(
        {"class": [population.classes[d.code] for d in decoys], "word": [d.word for d in decoys]}
    ).join(tested[len(frame) :].reset_index(drop=True))
    return Discovery(
        frame.assign(picture="").reindex(columns=list(COLUMNS)),
        of_decoys,
        len(directions.phrases),
        listed.named,
        tried,
        int(((found.images > 0) & (again.images > 0))[: population.audited].sum()),
        population.total,
        {place.name: place.clearest for place in places},
    )


def worth_a_look(candidates: pd.DataFrame) -> pd.DataFrame:
    """Candidates that are not confirmed, but unusual for their class.

    These are the first words and places of a class that are unusual for it on both halves, and what
    has no word and is in some images of this class alone.

    Args:
        candidates: the candidates of a `Discovery`.
    """
    unusual = candidates[["effect", "effect_again"]].min(axis=1) > WORTH_A_LOOK
    first = candidates["rank"] <= FIRST
    open_ones = ~candidates["confirmed"].astype(bool)
    only_here = candidates["reason"] == ONLY_HERE
    return candidates[open_ones & (unusual & first | only_here)].reset_index(drop=True)


def listed(candidates: pd.DataFrame) -> pd.DataFrame:
    """The confirmed candidates, then those that are worth a look."""
    confirmed = candidates[candidates["confirmed"].astype(bool)]
    return pd.concat([confirmed, worth_a_look(candidates)], ignore_index=True)


@dataclass(frozen=True)
class DiscoveryCosts:
    """What a discovery would read and compute.

    Attributes:
        images: labelled images whose embeddings are read.
        classes: audited classes.
        words: words of the vocabulary, before the model tells which of them it tells apart.
        pairs: most words of classes that are tested, decoys not counted.
        things: most things and places without a word that are tested.
        class_maps: columns of stored maps of the classes that are read.
        maps: most maps that are computed.
    """

    images: int
    classes: int
    words: int
    pairs: int
    things: int
    class_maps: int
    maps: int

    def __str__(self) -> str:
        decoys = min(self.pairs, MOST_DECOYS)
        stored = f"{counted(self.class_maps, 'column')} of their maps, read once; "
        return (
            f"{self.words:,} words to encode with the run's model, unless an earlier call has; the "
            f"embeddings of {self.images:,} images in {self.classes:,} classes, read six times; "
            f"{stored if self.class_maps else ''}at most {self.pairs:,} words, {self.things:,} "
            f"things and places without a word and {decoys} decoys tested; at most {self.maps:,} "
            f"maps of {self.maps:,} images"
        )


def discovery_costs(
    results: Results, settings: AuditConfig, words: Sequence[str], top: int = TOP
) -> DiscoveryCosts:
    """What `discover` would cost; reads the labels only.

    Raises:
        UsageError: as `discover`.
    """
    population = population_of(results, settings)
    pairs = min(2 * top * population.audited, MOST_PAIRS)
    classes = population.audited
    stored = class_maps(results, population)
    things = min(THINGS * classes, MOST_THINGS) + PLACES * len(stored)
    maps = int(np.minimum(population.sizes[:classes], HEAT_IMAGES).sum())
    columns = len(set(stored.values()))
    return DiscoveryCosts(population.total, classes, len(words), pairs, things, columns, maps)


def population_of(results: Results, settings: AuditConfig) -> Population:
    """The classes of a run whose cues can be found.

    Raises:
        UsageError: the run stored no embeddings, or there are fewer than two classes.
    """
    if EMBEDDING not in results.dataset.schema.names:
        raise UsageError(
            "discovery needs the embeddings of the images, and this run stored none "
            "(store.embeddings: false). Make a run with them, into another output"
        )
    population = count_population(results, settings.max_classes)
    if len(population.classes) < 2:
        raise UsageError(
            f"discovery compares classes, and {len(population.classes)} of this run's labels has "
            "explained images; two are needed"
        )
    return population


def _of_half(population: Population, sums: EmbeddingSums) -> Population:
    """The population of one half, with the classes of the whole."""
    images = sums.every[0] if population.has_sets else None
    return replace(population, sizes=sums.images.astype(np.int64), images=images)


def _class_texts(results: Results, population: Population, directions: Directions) -> Array:
    """(K, E) direction of each class's query; NaN where it has none."""
    names = queries_by_label(results.queries)
    texts = np.full((len(population.classes), directions.words.shape[1]), np.nan)
    for code, label in enumerate(population.classes):
        if names.get(label) in directions.queries:
            texts[code] = directions.queries[names[label]]
    return texts
