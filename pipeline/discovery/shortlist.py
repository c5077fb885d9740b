"""From both scans to the pairs that are tested on the other half, and to their decoys."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from legrad.queries.query import Role
from pipeline.audit.directions import Directions
from pipeline.audit.inference import Array
from pipeline.audit.scores import Population
from pipeline.audit.suspicion_scan import EmbeddingSums
from pipeline.audit.vocabulary import vocabulary
from pipeline.discovery.confirm import PairOfWord
from pipeline.discovery.scan import ECHO, NAMES, Leader, Likenesses, Scan, leaders
from pipeline.discovery.words import Relation, wordnet
from pipeline.results.results import Results

MOST_PAIRS = 600
"""Pairs that are tested at most, those with the largest effects: every test raises the q-values of
all."""
MOST_DECOYS = 200
"""Decoys that are tested at most; they are enough to tell a rate of .05 from one of .1."""
DECOY_ECHO = 0.5
"""Correlation with a found word from which a word cannot be its decoy."""


@dataclass(frozen=True)
class Found:
    """A word of a class that is to be tested.

    Attributes:
        candidate: class and word.
        leader: the word, and those that it stands for.
        by: which scans found it.
        relation: its relation to the class in WordNet.
    """

    candidate: PairOfWord
    leader: Leader
    by: str
    relation: Relation


class Shortlist:
    """From both scans to the pairs that are tested, and their decoys."""

    def __init__(
        self,
        results: Results,
        population: Population,
        directions: Directions,
        sums: EmbeddingSums,
        scanned: Scan,
        top: int,
    ) -> None:
        self.population = population
        self.directions_of_words = directions.words
        self.phrases = directions.phrases
        self.scanned = scanned
        self.top = top
        self.likenesses = Likenesses.of(directions.words, sums.covariance)
        roles = {Role.CUE, Role.DECOY}
        cues = [q.name for q in results.queries if q.role in roles and q.name in directions.queries]
        decoys = {q.name for q in results.queries if q.role is Role.DECOY}
        width = directions.words.shape[1]
        of_cues = [directions.queries[name] for name in cues]
        every = np.stack(of_cues) if cues else np.zeros((0, width))
        self.of_cues = every[[name not in decoys for name in cues]]
        self.repeats = self.likenesses.with_any(every, sums.covariance) > ECHO
        ordinary = set(vocabulary())
        self.ordinary = np.array([phrase in ordinary for phrase in directions.phrases])
        self.names = np.nan_to_num(scanned.alike, nan=-1) > NAMES

    @property
    def named(self) -> tuple[str, ...]:
        """Words that repeat a cue of the run."""
        return tuple(self.phrases[word] for word in np.flatnonzero(self.repeats))

    def words_in(self, pairs: Sequence[Found], code: int) -> Array:
        """(D, E) directions of the words that were found for a class."""
        words = [pair.leader.word for pair in pairs if pair.candidate.code == code]
        return self.directions_of_words[words]

    def pairs(self) -> list[Found]:
        """The words of each class that are tested, best first."""
        every: list[Found] = []
        for code in range(self.population.audited):
            if not np.isnan(self.scanned.shift[code]).any():
                every += self._of_class(code)
        if len(every) > MOST_PAIRS:
            effects = [-self.scanned.shift[p.candidate.code, p.leader.word] for p in every]
            kept = sorted(np.argsort(effects, kind="stable")[:MOST_PAIRS])
            every = [every[number] for number in kept]
        return every

    def _of_class(self, code: int) -> list[Found]:
        label, net = self.population.classes[code], wordnet()
        relations = [net.relation(label, phrase) for phrase in self.phrases]
        names = np.array([relation is Relation.NAME for relation in relations])
        left_out = self.repeats | self.names[code] | names
        by_shift, by_probe = (
            leaders(values[code], left_out, self.likenesses, self.top, self.ordinary)
            for values in (self.scanned.shift, self.scanned.probe)
        )
        found = [
            Found(self._pair(code, leader), leader, "shift", relations[leader.word])
            for leader in by_shift
        ]
        for leader in by_probe:
            same = [n for n, f in enumerate(found) if self._same(f.leader, leader)]
            if same:
                found[same[0]] = replace(found[same[0]], by="shift, probe")
            else:
                relation = relations[leader.word]
                found.append(Found(self._pair(code, leader), leader, "probe", relation))
        return found

    def _same(self, one: Leader, other: Leader) -> bool:
        if other.word == one.word or other.word in one.also:
            return True
        return bool(self.likenesses.between(one.word, [other.word])[0] > ECHO)

    def _pair(self, code: int, leader: Leader) -> PairOfWord:
        return PairOfWord(code, self.phrases[leader.word])

    def decoys(self, pairs: Sequence[Found], seed: int) -> list[PairOfWord]:
        """Words drawn at random for the same classes, unlike all that was found for the class."""
        rng = np.random.default_rng([seed, len(pairs)])
        drawn: list[PairOfWord] = []
        for code, group in groupby(pairs, key=lambda pair: pair.candidate.code):
            found = [pair.leader.word for pair in group]
            usable = ~(self.repeats | self.names[code])
            for word in found:
                alike = self.likenesses.scaled @ self.likenesses.through[word]
                usable &= np.abs(alike) < DECOY_ECHO
            pool = np.flatnonzero(usable)
            words = rng.choice(pool, min(len(found), len(pool)), replace=False)
            drawn += [PairOfWord(code, self.phrases[word]) for word in words]
        kept = rng.permutation(len(drawn))[:MOST_DECOYS]
        return [drawn[number] for number in np.sort(kept)]

    def directions(
        self, pairs: Sequence[Found], decoys: Sequence[PairOfWord]
    ) -> dict[str, NDArray[np.float32]]:
        """Word -> (E,) of all that is tested."""
        index = {phrase: number for number, phrase in enumerate(self.phrases)}
        wanted = [*(pair.candidate.word for pair in pairs), *(decoy.word for decoy in decoys)]
        return {
            word: self.directions_of_words[index[word]].astype(np.float32)
            for word in dict.fromkeys(wanted)
        }

    def frame(self, pairs: Sequence[Found], again: Scan) -> pd.DataFrame:
        """One row per pair, what the scans say."""
        codes = [pair.candidate.code for pair in pairs]
        words = [pair.leader.word for pair in pairs]
        frame = pd.DataFrame(
            {
                "class": [self.population.classes[code] for code in codes],
                "word": [pair.candidate.word for pair in pairs],
                "kind": [str(pair.relation) or "cue" for pair in pairs],
                "also": [", ".join(self.phrases[w] for w in pair.leader.also) for pair in pairs],
                "found_by": [pair.by for pair in pairs],
                "effect": self.scanned.shift[codes, words],
                "effect_again": again.shift[codes, words],
                "probe_effect": self.scanned.probe[codes, words],
                "probe_score": self.scanned.probe_score[codes, words],
                "likeness": self.scanned.alike[codes, words],
            }
        )
        return frame.assign(rank=frame.groupby("class").cumcount() + 1)
