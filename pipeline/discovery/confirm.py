"""Words that were found on one half of the images, tested on the other as queries are.

A word counts as confirmed if its score has two states within classes and the class has one of them
more often, by the gates of the audit. q is adjusted over the pairs that were found and their
decoys: words of the same vocabulary, drawn at random, that go through the same test.

A direction without a word was found in its class alone, where it may stand for a kind of the object
or for a background as it looks in this class. Every class has such directions, and no other class
has them. So the other classes must show two states by themselves, too, and the class must have the
upper one more often than they do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pipeline.audit import association, cooccurrence, presence, ranking
from pipeline.audit.association import Association
from pipeline.audit.class_view import view_classes
from pipeline.audit.cooccurrence import Cooccurrence
from pipeline.audit.histograms import Histograms, count_histograms
from pipeline.audit.inference import Z95, adjusted
from pipeline.audit.label_estimates import COLUMNS
from pipeline.audit.presence import Presence
from pipeline.audit.scores import Population
from pipeline.config.audit_settings import AuditConfig, Gates
from pipeline.discovery.halves import HalfScores

MOST_CELLS = 100_000_000
"""Bins of the histograms of all classes that are held at once; 4 bytes each, several times."""
ONLY_HERE = (
    "the images of the other classes have no two states along it, so it may be a kind of the "
    "object itself, or something that only this class has: look at its images"
)
"""Reason of a direction without a word that has two states in its class, and in no other."""
FIELDS = ("share", "share_elsewhere", "effect", "low", "high", "q")


@dataclass(frozen=True)
class PairOfWord:
    """A class, by its code, and a word.

    Attributes:
        has_word: False for the name of a thing or place without a word.
    """

    code: int
    word: str
    has_word: bool = True


def confirm(
    half: HalfScores,
    population: Population,
    pairs: Sequence[PairOfWord],
    settings: AuditConfig,
) -> pd.DataFrame:
    """Test pairs on the confirming half.

    Args:
        half: the confirming half, with the directions of all words.
        population: classes and the sizes of the half.

    Returns:
        One row per pair, in their order: `FIELDS` (of the odds ratio: effect, low, high),
        ``images``, ``presence``, ``confirmed``, and ``reason`` where it is not.
    """
    rows: dict[PairOfWord, dict[str, object]] = {}
    cells = len(population.classes) * settings.bins
    words = list(dict.fromkeys(pair.word for pair in pairs))
    for chunk in _chunks(words, max(1, MOST_CELLS // cells)):
        in_chunk = set(chunk)
        wanted = [pair for pair in pairs if pair.word in in_chunk]
        rows |= _tested(half, population, chunk, wanted, settings)
    frame = pd.DataFrame([rows[pair] for pair in pairs], columns=[*FIELDS[:-1], *_OTHERS])
    q = adjusted(frame["p"].to_numpy(float))
    reasons = frame["reason"].to_numpy(object).copy()
    chance = (reasons == "") & ~(q < settings.gates.q)
    reasons[chance] = f"may be chance: q is not below {settings.gates.q:g}"
    frame = frame.assign(q=q, reason=reasons, confirmed=reasons == "")
    return frame[[*FIELDS, "images", "presence", "confirmed", "reason"]]


_OTHERS = ("p", "images", "presence", "reason")
_KEPT = ("share", "share_elsewhere", "images", "presence")


def _chunks(words: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(words), most):
        yield words[start : start + most]


def _tested(
    half: HalfScores,
    population: Population,
    words: Sequence[str],
    pairs: Sequence[PairOfWord],
    settings: AuditConfig,
) -> dict[PairOfWord, dict[str, object]]:
    """A row of each pair of some words, all but q."""
    gates = settings.gates
    part = replace(half, directions={word: half.directions[word] for word in words})
    histograms = count_histograms(part, population, words, settings.bins)
    present = presence.measure(histograms, gates, {})
    together = cooccurrence.count_together(part, population, present)
    view = view_classes(part, population, present, frozenset())
    tested = association.associate(view, gates, settings.bootstrap, settings.seed)
    certain = replace(tested, q=np.where(tested.tested, 0.0, np.nan))
    ranked = ranking.build(
        population, view.presence, certain, (), gates, pd.DataFrame(columns=list(COLUMNS))
    )
    wanted = pd.MultiIndex.from_tuples([(population.classes[p.code], p.word) for p in pairs])
    by_pair = ranked.set_index(["class", "cue"]).loc[wanted.unique()].to_dict(orient="index")
    index = {word: number for number, word in enumerate(words)}
    echoes = _echoes(pairs, index, together, present, gates.echo)
    rows = {}
    for pair in pairs:
        row = by_pair[population.classes[pair.code], pair.word]
        values: dict[str, object] = {name: row[name] for name in _KEPT}
        values |= {name: row[f"association__{name}"] for name in ("effect", "low", "high")}
        p, reason = tested.p[index[pair.word], pair.code], row["association__reason"]
        if not (pair.has_word or reason):
            reason = _of_the_class(histograms, index[pair.word], pair.code, tested, gates)
        if pair in echoes:
            p = np.nan
            reason = (
                f"its presence goes with that of {echoes[pair]}, which the model sees more clearly"
            )
        rows[pair] = values | {"p": p, "reason": reason}
    return rows


def _of_the_class(
    histograms: Histograms, cue: int, code: int, tested: Association, gates: Gates
) -> str:
    """Why a direction without a word may be something that only its class can have, or empty."""
    counts = histograms.counts[[cue]].copy()
    counts[:, code] = 0
    others = Histograms(histograms.cues[cue : cue + 1], histograms.edges[[cue]], counts)
    fitted = presence.measure(others, gates, {}, check_shape=False)
    if not fitted.measured[0]:
        return ONLY_HERE
    log_odds, error = association.log_odds_ratio(
        tested.with_cue[cue, code],
        tested.images[cue, code],
        (counts * fitted.posterior).sum(dtype=np.float64),
        counts.sum(dtype=np.float64),
    )
    if np.exp(log_odds - Z95 * error) > gates.odds_ratio:
        return ""
    return "the other classes by themselves show it as often as this class"


def _echoes(
    pairs: Sequence[PairOfWord],
    index: Mapping[str, int],
    together: Cooccurrence,
    present: Presence,
    least: float,
) -> dict[PairOfWord, str]:
    """Pairs whose presence goes with that of another word of the same class, and that word.

    Only the word that is seen most clearly stays. A word of another class does not count: it
    may be another name for what is planted here.
    """
    phi = np.nan_to_num(np.abs(together.phi()))
    row_of = {int(cue): row for row, cue in enumerate(together.cues)}
    echoes = {}
    for pair in pairs:
        others = [p.word for p in pairs if p.code == pair.code and index[p.word] in row_of]
        for word in others if index[pair.word] in row_of else []:
            alike = phi[row_of[index[pair.word]], row_of[index[word]]]
            clearer = present.separation[index[word]] > present.separation[index[pair.word]]
            if clearer and alike > least:
                echoes[pair] = word
    return echoes
