"""The report: pages of findings that open from disk, and the demo's sheet of heatmaps."""

from pipeline.report.sheet import SheetRow, draw_sheet

__all__ = ["SheetRow", "draw_sheet"]
