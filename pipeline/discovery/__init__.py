"""Cues that nobody named: found with a vocabulary on half of the images, tested on the other."""

from pipeline.discovery.heat import apart, with_heat
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
    "apart",
    "discover",
    "discovery_costs",
    "listed",
    "store",
    "stored_candidates",
    "with_heat",
    "words",
    "worth_a_look",
]
