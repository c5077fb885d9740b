"""``legrad view``: search, label and decide on one output, served to a browser on this machine."""

from pipeline.viewer.server import make_app, serve
from pipeline.viewer.view import View

__all__ = ["View", "make_app", "serve"]
