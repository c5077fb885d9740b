"""One image data set, end to end: shards in object storage -> heatmaps in Parquet -> pandas.

What a notebook needs is here, and importing it imports neither torch nor Ray::

    from pipeline import Audit, open_results

    results = open_results("out")      # a run's output; s3://... too
    results.scores(["dog"])            # a pandas frame by image_id; more: help(pipeline.Results)
    Audit.from_results("out").rank()   # associated class-cue pairs: help(pipeline.Audit)

Runs are started from the command line, ``legrad run --help``.
"""

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.auditor import Audit
    from pipeline.results import Results, open_results

__all__ = ["Audit", "Results", "open_results"]
_MODULES = {
    "Audit": "pipeline.auditor",
    "Results": "pipeline.results",
    "open_results": "pipeline.results",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        similar = difflib.get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}{hint}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
