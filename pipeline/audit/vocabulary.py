"""Directions of the run's queries and of a vocabulary, encoded once by the model of the run.

They are kept in ``OUT/_run`` in a file whose name is a digest of the weights, the queries and the
vocabulary. Words that the model is known not to have seen in training are left out: the mini model
knows about 270 of them.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.machine import cores
from pipeline.results.results import Results
from pipeline.storage.location import Location

if TYPE_CHECKING:
    from legrad.models.vision_language import VisionLanguageModel


@dataclass(frozen=True)
class Directions:
    """Directions in the embedding space.

    Attributes:
        queries: names of the Q queries.
        of_queries: (Q, E), as the run used them.
        words: the W words.
        of_words: (W, E) unit rows.
    """

    queries: tuple[str, ...]
    of_queries: NDArray[np.float32]
    words: tuple[str, ...]
    of_words: NDArray[np.float32]

    def packed(self) -> bytes:
        """Content of a file that `unpack` reads."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            queries=np.array(self.queries),
            of_queries=self.of_queries,
            words=np.array(self.words),
            of_words=self.of_words,
        )
        return buffer.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> "Directions":
        """Read what `packed` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return cls(
                tuple(stored["queries"].tolist()),
                stored["of_queries"],
                tuple(stored["words"].tolist()),
                stored["of_words"],
            )


@cache
def vocabulary() -> tuple[str, ...]:
    """The words that are shipped, in the order of the file."""
    text = files("pipeline.audit").joinpath("vocabulary.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def stored_directions(results: Results, tell: Callable[[str], None]) -> Directions:
    """The directions from their file; where there is none, the model encodes them on the CPU.

    Args:
        tell: called with a message before the model is loaded.

    Raises:
        UsageError: the model cannot be loaded here, or has other weights than in the run.
    """
    file = _file(results)
    if file.exists():
        return Directions.unpack(file.read())
    directions = _encode(results, tell)
    try:
        file.write(directions.packed())
    except UsageError as error:  # an output that may only be read; they are encoded again next time
        tell(f"the directions of the words could not be stored: {error}")
    return directions


def _file(results: Results) -> Location:
    identity = results.run["identity"]
    queries = [identity.get(f"query.{query.name}", query.name) for query in results.queries]
    about = [identity.get("model.weights_sha256"), queries, vocabulary()]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return results.folder.root.child("_run", f"words-{digest[:24]}.npz")


def _encode(results: Results, tell: Callable[[str], None]) -> Directions:
    import warnings

    from legrad.errors import UnsupportedModelError
    from legrad.queries.query import encode_queries
    from pipeline.results.reproduce import model_config
    from pipeline.stages.replica import ReplicaSettings

    name = results.run["metadata"]["model"].get("name")
    tell(f"encoding the words of the suspicions with {name}, once for this run")
    try:
        model = ReplicaSettings(model_config(results.run), "cpu", cores(), None).load()
        words = known_words(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the run said which texts are unknown
            of_queries = encode_queries(model, results.queries)
        of_words = model.encode_text(list(words))
    except (OSError, ValueError, KeyError, RuntimeError, UnsupportedModelError) as error:
        raise UsageError(f"the model {name} cannot be loaded here: {error}") from error
    if model.digest != results.run["identity"].get("model.weights_sha256"):
        raise UsageError(f"{name} has other weights here than in the run")
    return Directions(
        tuple(query.name for query in results.queries),
        of_queries.float().cpu().numpy(),
        words,
        of_words.float().cpu().numpy(),
    )


def known_words(model: "VisionLanguageModel") -> tuple[str, ...]:
    """The words of the vocabulary that the model may know: all, if it does not say."""
    known = model.known_tokens
    if known is None:
        return vocabulary()
    tokens = model.tokenizer(list(vocabulary())).tolist()
    return tuple(w for w, row in zip(vocabulary(), tokens, strict=True) if known.issuperset(row))
