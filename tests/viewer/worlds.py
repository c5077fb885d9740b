"""A small run whose names are hostile, whose source is gone, and whose model is unknown."""

import numpy as np

from tests.audit.worlds import World, labels

HOSTILE = "</script><img src=x onerror=alert(1)>"
COUNT = 600


def world() -> World:
    """Embeddings are three directions, one a class; the cue ``tag`` is frequent in one class."""
    made = World(labels(COUNT, [HOSTILE, "dog", "cat"]))
    made.statuses[5] = "truncated"
    made.cue("tag", {HOSTILE: 0.7}).cue("ink", {"dog": 0.6})
    made.maps["tag"] = np.random.default_rng(1).random((COUNT, 4, 4))
    directions = np.eye(8)[[[HOSTILE, "dog", "cat"].index(str(label)) for label in made.labels]]
    noise = np.random.default_rng(2).normal(0, 0.05, directions.shape)
    vectors = directions + noise
    made.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return made
