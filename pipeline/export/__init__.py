"""Findings for other tools: ids, groups, issues, COCO, FiftyOne."""

from pipeline.export.export import FORMATS, export

__all__ = ["FORMATS", "export"]
