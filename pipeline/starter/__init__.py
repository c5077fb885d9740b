"""Write a first configuration for a data set, with class queries for its labels."""

from pipeline.starter.files import Starter, write_starter

__all__ = ["Starter", "write_starter"]
