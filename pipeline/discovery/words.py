"""Words for what can be seen, and which of them are other names or parts of a class.

The words are WordNet's (`training/vocabulary.py` chooses them) and the audit's own list, which adds
what hides in data sets and in no dictionary: watermarks, timestamps, rulers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

from pipeline.audit.vocabulary import vocabulary
from pipeline.errors import UsageError
from pipeline.storage.location import Options, open_location
from pipeline.storage.text import as_utf8

_FILE = Path(__file__).with_name("words.tsv")
_NEAR = 3  # levels up whose parts are those of a class: a wheel of a car is one of a vehicle
FEWEST_WORDS = 200
"""Words that a vocabulary needs: they are the null that each of them is compared with."""


WITHOUT_WORD = ("thing", "place")
"""Kinds of candidates that are directions of embeddings and have no word."""


class Relation(StrEnum):
    """What a word is to a class, by WordNet."""

    NONE = ""
    """Nothing that WordNet knows."""
    NAME = "name"
    """A synonym, a kind of it, or something more general."""
    PART = "part"
    """A part of it, or something that it is a part of."""


@dataclass(frozen=True)
class WordNet:
    """The part of WordNet that is shipped.

    Attributes:
        up: set of synonyms -> more general ones.
        parts: set of synonyms -> its parts.
        meanings: word without article -> its sets of synonyms.
        phrases: all phrases, each once.
    """

    up: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, tuple[str, ...]]
    meanings: Mapping[str, tuple[str, ...]]
    phrases: tuple[str, ...]
    _closures: dict[tuple[tuple[str, ...], int], frozenset[str]] = field(default_factory=dict)

    def meanings_of(self, text: str) -> tuple[str, ...]:
        """Sets of synonyms of a phrase or label; of its last word if the whole is unknown."""
        words = plain_word(text)
        return self.meanings.get(words) or self.meanings.get(words.rpartition(" ")[2], ())

    def relation(self, label: str, phrase: str) -> Relation:
        """What a phrase is to a class with this label."""
        of_class, of_word = self.meanings_of(label), self.meanings.get(plain_word(phrase), ())
        if not of_class or not of_word:
            return Relation.NONE
        if self._above(of_class) & set(of_word) or self._above(of_word) & set(of_class):
            return Relation.NAME
        wholes, parts = self._above(of_class, _NEAR), self._above(of_word, 1)
        if parts & self._parts(wholes) or set(of_class) & self._parts(self._above(of_word, _NEAR)):
            return Relation.PART
        return Relation.NONE

    def _parts(self, numbers: Iterable[str]) -> set[str]:
        return {part for number in numbers for part in self.parts.get(number, ())}

    def _above(self, numbers: tuple[str, ...], levels: int = 99) -> frozenset[str]:
        """The sets of synonyms and all that are more general, up to some levels; kept."""
        if (numbers, levels) not in self._closures:
            self._closures[numbers, levels] = self._climb(numbers, levels)
        return self._closures[numbers, levels]

    def _climb(self, numbers: Iterable[str], levels: int) -> frozenset[str]:
        every, level = set(numbers), set(numbers)
        for _ in range(levels):
            level = {parent for number in level for parent in self.up.get(number, ())} - every
            if not level:
                break
            every |= level
        return frozenset(every)


@cache
def plain_word(text: str) -> str:
    """A phrase or label in lower case, without article and underscores."""
    words = text.lower().replace("_", " ").replace("-", " ").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in _ARTICLES else words)


_ARTICLES = ("a", "an", "the")


@cache
def wordnet() -> WordNet:
    """Read the shipped file."""
    up, parts, meanings = {}, {}, dict[str, list[str]]()
    phrases: dict[str, None] = {}
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        number, above, below, texts = line.split("\t")
        up[number], parts[number] = tuple(above.split()), tuple(below.split())
        for text in texts.split("|") if texts else ():
            phrases[text] = None
            meanings.setdefault(plain_word(text), []).append(number)
    return WordNet(
        up, parts, {word: tuple(numbers) for word, numbers in meanings.items()}, tuple(phrases)
    )


def words(uri: str | None = None, options: Options | None = None) -> tuple[str, ...]:
    """The vocabulary: the shipped one, or a user's file with a phrase a line.

    Raises:
        UsageError: the file is missing or has fewer than `FEWEST_WORDS` phrases.
    """
    if uri is None:
        return tuple(dict.fromkeys([*vocabulary(), *wordnet().phrases]))
    data, _ = as_utf8(open_location(uri, options).read())
    lines = dict.fromkeys(line.strip() for line in data.decode().splitlines())
    phrases = tuple(line for line in lines if line and not line.startswith("#"))
    if len(phrases) < FEWEST_WORDS:
        raise UsageError(
            f"{uri}: {len(phrases)} phrases; expected a phrase a line, at least {FEWEST_WORDS}, "
            "because each is compared with all others"
        )
    return phrases
