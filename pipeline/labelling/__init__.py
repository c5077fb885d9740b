"""Labelling: draw images of a few pairs, and write the table and the page to label them on."""

from pipeline.labelling.labelling import Written, write_labelling

__all__ = ["Written", "write_labelling"]
