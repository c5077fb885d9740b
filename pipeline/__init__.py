"""One image dataset, end to end: shards in object storage -> heatmaps in Parquet -> pandas."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.audit import Audit
    from pipeline.results import Results, open_results

__all__ = ["Audit", "Results", "open_results"]
_PLACES = {
    "Audit": "pipeline.audit",
    "Results": "pipeline.results",
    "open_results": "pipeline.results",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
