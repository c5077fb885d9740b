"""Cues that nobody named: found with a vocabulary on half of the images, tested on the other."""

from pipeline.discovery.search import TOP, Discovery, discover, discovery_costs, worth_a_look
from pipeline.discovery.words import words

__all__ = ["TOP", "Discovery", "discover", "discovery_costs", "words", "worth_a_look"]
