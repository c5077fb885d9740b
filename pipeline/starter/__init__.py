"""A starter configuration for data that nobody has described yet: look, name, write."""

from pipeline.starter.files import Starter, write_starter

__all__ = ["Starter", "write_starter"]
