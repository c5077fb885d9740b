"""The audit of a run: which classes hang on which cues, one statistic a file."""

from pipeline.audit.audit import Audit

__all__ = ["Audit"]
