"""Pictures of results."""

from pipeline.report.sheet import SheetRow, draw_sheet

__all__ = ["SheetRow", "draw_sheet"]
