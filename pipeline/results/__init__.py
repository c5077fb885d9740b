"""Reading what a run found: pandas frames of scores and maps, from committed parts."""

from pipeline.results.results import Results, open_results

__all__ = ["Results", "open_results"]
