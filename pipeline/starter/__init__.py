"""Write a first configuration for a data set: look at the data, name its classes, write files."""

from pipeline.starter.files import Starter, write_starter

__all__ = ["Starter", "write_starter"]
