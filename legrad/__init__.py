"""LeGrad heatmaps for the vision transformers of open_clip and timm, mostly in closed form.

Shapes are named alike everywhere:

    B  images           Q  queries (rows of text features, or other directions)
    L  explained layers H  attention heads     d  width of a head
    T  tokens: prefix tokens such as the class token, if the tower has any, and h x w patches
    D  tower width      F  hidden width of a block's MLP      E  embedding width
    b, q  images and queries of one chunk
    h x w  patch grid, row-major; (0, 0) is the top left patch

Words:

    query      a named direction in the embedding space: texts, images, a difference or a vector
    direction  the vector (E,) of a query; a score is its dot product with a unit image feature
    map        (h, w) relevance of the patches of one image for one query, raw and non-negative
    tower      the vision transformer of a model, seen through an adapter (`legrad.towers`)
    head       the layers that turn a pooled token into the embedding
    pooler     attention of a learned query over all tokens, in towers that pool by attention

The names below load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from legrad._version import __version__

if TYPE_CHECKING:
    from legrad.errors import UnsupportedModelError
    from legrad.heatmaps.codec import decode_maps, encode_maps
    from legrad.method.explainer import LeGrad
    from legrad.method.explanation import Explanation
    from legrad.models.catalog import ListedModel, list_models
    from legrad.models.classifier import Classifier
    from legrad.models.load import from_open_clip, load_model
    from legrad.models.load_classifier import from_timm, load_classifier
    from legrad.models.vision_language import VisionLanguageModel
    from legrad.queries.query import Query

_HOME = {
    "Classifier": "legrad.models.classifier",
    "Explanation": "legrad.method.explanation",
    "LeGrad": "legrad.method.explainer",
    "ListedModel": "legrad.models.catalog",
    "Query": "legrad.queries.query",
    "UnsupportedModelError": "legrad.errors",
    "VisionLanguageModel": "legrad.models.vision_language",
    "decode_maps": "legrad.heatmaps.codec",
    "encode_maps": "legrad.heatmaps.codec",
    "from_open_clip": "legrad.models.load",
    "from_timm": "legrad.models.load_classifier",
    "list_models": "legrad.models.catalog",
    "load_classifier": "legrad.models.load_classifier",
    "load_model": "legrad.models.load",
}

__all__ = [
    "Classifier",
    "Explanation",
    "LeGrad",
    "ListedModel",
    "Query",
    "UnsupportedModelError",
    "VisionLanguageModel",
    "__version__",
    "decode_maps",
    "encode_maps",
    "from_open_clip",
    "from_timm",
    "list_models",
    "load_classifier",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'legrad' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
