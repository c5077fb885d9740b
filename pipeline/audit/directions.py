"""Directions of the run's queries and of the vocabulary, from texts that are encoded once a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from legrad.errors import UnsupportedModelError
from legrad.queries.directions import read_vector
from legrad.queries.query import Query, distinct_texts
from pipeline.audit.inference import Array
from pipeline.audit.vocabulary import Encode, distinct_rows, text_features, vocabulary
from pipeline.errors import UsageError
from pipeline.machine import cores
from pipeline.results.reproduce import model_config
from pipeline.results.results import Results


@dataclass(frozen=True)
class Directions:
    """Directions in the embedding space.

    Attributes:
        queries: name -> (E,); queries by exemplar images, which would have to be embedded again,
            have none.
        words: (W, E) of the words of the vocabulary that the model tells apart.
        phrases: (W,) these words.
    """

    queries: dict[str, Array]
    words: Array
    phrases: tuple[str, ...]


def run_directions(
    results: Results, tell: Callable[[str], None], words: Sequence[str] | None = None
) -> Directions:
    """The directions of a run; the first call loads its model on the CPU.

    Args:
        tell: called with a message before the model may be loaded.
        words: the vocabulary; default the audit's own. Texts of the run's cues are left out.

    Raises:
        UsageError: the model cannot be loaded here, or has other weights than in the run.
    """
    name = results.run["metadata"]["model"]["name"]
    words, texts = encoded_texts(results, words)
    digest = str(results.run["identity"].get("model.weights_sha256"))
    folder = results.folder.root.child("_run")
    tell(f"comparing with {len(words):,} words in the text space of {name}")
    try:
        model = model_config(results.run)  # fails where the model was a file that is gone
        features = text_features(model, digest, texts, folder, cores()).astype(np.float64)
        queries = _directions(results, features[len(words) :])
    except (OSError, ValueError, RuntimeError, UnsupportedModelError) as error:
        raise UsageError(f"the model {name} cannot be loaded here: {error}") from error
    kept = distinct_rows(features[: len(words)])
    return Directions(queries, features[kept], tuple(words[row] for row in kept))


def encode_words(results: Results, encode: Encode) -> None:
    """Encode the texts of `run_directions` with a model that is in memory, and keep them for it.

    Args:
        encode: encodes texts with the run's model.

    Raises:
        UsageError: the run's model is unknown here.
    """
    digest = str(results.run["identity"].get("model.weights_sha256"))
    folder = results.folder.root.child("_run")
    try:
        model = model_config(results.run)
    except (OSError, ValueError) as error:
        raise UsageError(f"the run's model is unknown here: {error}") from error
    text_features(model, digest, encoded_texts(results)[1], folder, encode=encode)


def encoded_texts(
    results: Results, words: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """The words of a vocabulary that are no cues, and all texts to encode, these words first."""
    cues = {text for query in results.queries for text in query.texts() if query.label is None}
    kept = [word for word in (vocabulary() if words is None else words) if word not in cues]
    return kept, [*kept, *(text for query in results.queries for text in query.texts())]


def _directions(results: Results, features: Array) -> dict[str, Array]:
    """Name -> direction, from the features of all texts of the queries in order."""
    directions: dict[str, Array] = {}
    start = 0
    for query in results.queries:
        count = len(query.texts())
        if count:
            mean = features[start : start + count].mean(axis=0)
            directions[query.name] = mean / np.linalg.norm(mean)
            start += count
        elif query.vector is not None:
            directions[query.name] = read_vector(query.vector).astype(np.float64)
    directions |= distinct_texts(results.queries, directions)
    for query in results.queries:
        if query.difference is not None and _known(query, directions):
            plus, minus = query.difference
            directions[query.name] = directions[plus] - directions[minus]
    return directions


def _known(query: Query, directions: dict[str, Array]) -> bool:
    return all(name in directions for name in query.difference or ())
