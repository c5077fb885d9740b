"""Cues that nobody named: found with a vocabulary on half of the images, tested on the other."""

from pipeline.discovery.search import (
    TOP,
    Discovery,
    discover,
    discovery_costs,
    listed,
    worth_a_look,
)
from pipeline.discovery.stored import store, stored_candidates
from pipeline.discovery.words import words

__all__ = [
    "TOP",
    "Discovery",
    "discover",
    "discovery_costs",
    "listed",
    "store",
    "stored_candidates",
    "words",
    "worth_a_look",
]
